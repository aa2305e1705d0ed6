// tokenizer.model: ids and texts equal those of the `sentencepiece` package; what transformers'
// LlamaTokenizer adds around it; refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>
#include "models/tokenizer/sentencepiece.h"
#include "tests/models/tokenizer/tokenizer_fixtures.h"

namespace pbserve::test {
namespace {

using models::sentencepiece_from_files;
using models::Tokenizer;
using testing::HasSubstr;

constexpr models::EncodeOptions kPlain{.add_special_tokens = false, .parse_special_tokens = false};

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Just enough of protobuf's wire format to write a SentencePiece model.
void put_varint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}
void put_number(uint64_t field, uint64_t value, std::string* out) {
  put_varint(field << 3, out);
  put_varint(value, out);
}
void put_bytes(uint64_t field, const std::string& bytes, std::string* out) {
  put_varint(field << 3 | 2, out);
  put_varint(bytes.size(), out);
  *out += bytes;
}

// As llama2_model() of make_fixtures.py: the order of merges gives the scores.
std::string model_of_conversion(const std::string& tokenizer_json) {
  const nlohmann::json model = nlohmann::json::parse(read_bytes(tokenizer_json)).at("model");
  std::map<std::string, float> scores;
  for (const auto& merge : model.at("merges")) {
    std::string piece = merge.get<std::string>();
    std::erase(piece, ' ');
    scores.emplace(piece, -static_cast<float>(scores.size()));
  }
  std::map<int, std::string> pieces;
  for (const auto& [piece, id] : model.at("vocab").items()) pieces[id.get<int>()] = piece;
  std::string proto;
  for (const auto& [id, piece] : pieces) {
    const float score = scores.contains(piece) ? scores[piece] : -1e6f;
    std::string entry;
    put_bytes(1, piece, &entry);
    put_varint(2 << 3 | 5, &entry);
    entry.append(reinterpret_cast<const char*>(&score), sizeof(score));
    put_number(3, id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1, &entry);
    put_bytes(1, entry, &proto);
  }
  std::string trainer;
  put_number(3, 2, &trainer);   // model_type: BPE
  put_number(35, 1, &trainer);  // byte_fallback
  put_bytes(2, trainer, &proto);
  std::string normalizer;
  put_number(4, 0, &normalizer);  // remove_extra_whitespaces
  put_bytes(3, normalizer, &proto);
  return proto;
}

std::unique_ptr<Tokenizer> make(const std::string& model, const std::string& config) {
  auto tokenizer = sentencepiece_from_files({.model = model, .config = config}, "folder");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

class SentencePieceFixture : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string name = GetParam();
    if (name == "llama-2") {
      const auto folder = unpack_tokenizer(name, dir_);
      if (!folder) GTEST_SKIP() << name << ".tar.xz is not in PBSERVE_TOKENIZERS";
      tokenizer_ = make(model_of_conversion(*folder + "/tokenizer.json"), "");
    } else {
      tokenizer_ = make(read_bytes(fixture_path(name + ".model")), "");
    }
    ASSERT_NE(tokenizer_, nullptr);
    fixture_ = read_fixture(name);
  }

  TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TokenizerFixture fixture_;
};

TEST_P(SentencePieceFixture, IdsEqualThePackages) {
  const std::vector<std::string> strings = read_fixture_strings();
  ASSERT_EQ(strings.size(), fixture_.ids.size());
  size_t num_compared = 0;
  for (size_t i = 0; i < strings.size(); ++i) {
    if (!fixture_.ids[i]) continue;
    ++num_compared;
    const auto ids = tokenizer_->encode(strings[i], kPlain);
    ASSERT_TRUE(ids.ok()) << ids.status();
    const auto difference = fixture_.ids[i]->difference(*ids);
    EXPECT_FALSE(difference) << "'" << strings[i].substr(0, 200) << "': " << *difference;
  }
  EXPECT_GE(num_compared, 2000u);
}

TEST_P(SentencePieceFixture, TextsEqualThePackages) {
  ASSERT_GE(fixture_.decoded.size(), 500u);
  for (const ExpectedText& expected : fixture_.decoded) {
    EXPECT_EQ(tokenizer_->decode(expected.ids, false), expected.all);
    EXPECT_EQ(decode_in_steps(*tokenizer_, expected.ids, false), expected.all);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SentencePieceFixture,
                         testing::Values("sp_bpe", "sp_unigram", "llama-2"), [](const auto& test) {
                           std::string name = test.param;
                           std::erase_if(name, [](char c) { return !isalnum(c); });
                           return name;
                         });

class SentencePiece : public testing::Test {
 protected:
  // The message of the refusal.
  std::string refusal(const std::string& config) const {
    const auto tokenizer = sentencepiece_from_files({.model = model_, .config = config}, "folder");
    EXPECT_FALSE(tokenizer.ok());
    return std::string(tokenizer.status().message());
  }

  const std::string model_ = read_bytes(fixture_path("sp_bpe.model"));
};

TEST_F(SentencePiece, BeginAndEndFollowTheConfiguration) {
  const std::vector<int32_t> text = *make(model_, "")->encode("a", kPlain);
  const auto encode = [&](const std::string& config) {
    return *make(model_, config)->encode("a", {});
  };
  std::vector<int32_t> with_begin = {1};
  with_begin.insert(with_begin.end(), text.begin(), text.end());
  std::vector<int32_t> with_both = with_begin;
  with_both.push_back(2);
  EXPECT_EQ(encode(""), with_begin);
  EXPECT_EQ(encode("{}"), with_begin);
  EXPECT_EQ(encode(R"({"add_bos_token": false})"), text);
  EXPECT_EQ(encode(R"({"add_eos_token": true, "eos_token": {"content": "</s>"}})"), with_both);
  EXPECT_EQ(encode(R"({"bos_token": "</s>"})")[0], 2);
}

TEST_F(SentencePiece, ControlAndAddedTokensAreFoundInText) {
  const auto tokenizer = make(model_, R"({"add_bos_token": false, "added_tokens_decoder": {
    "800": {"content": "<|end|>", "special": true, "rstrip": true},
    "801": {"content": "<tag>", "special": false}}})");
  EXPECT_EQ(tokenizer->vocab_size(), 802);
  EXPECT_EQ(tokenizer->token_id("<|end|>"), 800);
  EXPECT_TRUE(tokenizer->is_special(800));
  EXPECT_TRUE(tokenizer->is_special(1));
  EXPECT_FALSE(tokenizer->is_special(801));
  const auto a = *tokenizer->encode("a", {});
  std::vector<int32_t> expected = a;
  expected.insert(expected.end(), {1, 800});
  expected.insert(expected.end(), a.begin(), a.end());
  expected.push_back(801);
  EXPECT_EQ(*tokenizer->encode("a<s><|end|>  a<tag>", {}), expected);
  EXPECT_EQ(tokenizer->decode(expected, true), "a a<tag>");
  const auto plain = *tokenizer->encode("<s>", kPlain);
  EXPECT_GT(plain.size(), 1u);
}

TEST_F(SentencePiece, RefusesWhatLlamaTokenizerWouldDoDifferently) {
  EXPECT_THAT(refusal(R"({"legacy": false})"), HasSubstr("legacy"));
  EXPECT_THAT(refusal(R"({"add_prefix_space": false})"), HasSubstr("add_prefix_space"));
  EXPECT_THAT(refusal(R"({"tokenizer_class": "T5Tokenizer"})"), HasSubstr("T5Tokenizer"));
  EXPECT_THAT(refusal(R"({"sp_model_kwargs": {"alpha": 1}})"), HasSubstr("sp_model_kwargs"));
  EXPECT_THAT(refusal(R"({"bos_token": "<none>"})"), HasSubstr("bos_token"));
  EXPECT_THAT(refusal(R"({"added_tokens_decoder": {"5": {"content": "<other>"}}})"),
              HasSubstr("added_tokens_decoder.5"));
  EXPECT_THAT(refusal(R"({"added_tokens_decoder": {"x": {"content": "<other>"}}})"),
              HasSubstr("added_tokens_decoder.x"));
  EXPECT_THAT(refusal("{"), HasSubstr("tokenizer_config.json"));
}

TEST_F(SentencePiece, RefusesModelsItCannotDecode) {
  const auto with = [&](uint64_t spec, const std::string& fields) {
    std::string model = model_;
    put_bytes(spec, fields, &model);
    const auto tokenizer = sentencepiece_from_files({.model = model, .config = ""}, "folder");
    return std::string(tokenizer.status().message());
  };
  std::string suffix;
  put_number(24, 1, &suffix);
  EXPECT_THAT(with(2, suffix), HasSubstr("treat_whitespace_as_suffix"));
  std::string unescaped;
  put_number(5, 0, &unescaped);
  EXPECT_THAT(with(3, unescaped), HasSubstr("escape_whitespaces"));
}

TEST_F(SentencePiece, CorruptModelsAreRefused) {
  const auto load = [](const std::string& model) {
    return sentencepiece_from_files({.model = model, .config = ""}, "folder").status();
  };
  // A cut between two pieces leaves a valid, smaller model, which may be accepted.
  size_t num_refused = 0;
  for (size_t size = 1; size < model_.size(); size += 97) {
    const absl::Status cut = load(model_.substr(0, size));
    if (cut.ok()) continue;
    ++num_refused;
    EXPECT_THAT(std::string(cut.message()), HasSubstr("folder/tokenizer"));
  }
  EXPECT_GT(num_refused, 100u);
  EXPECT_FALSE(load("").ok());
  EXPECT_FALSE(load(std::string(1000, '\xFF')).ok());
}

TEST_F(SentencePiece, StandsInForItsConversion) {
  const TempDir dir;
  dir.write("tokenizer.json", R"({"model": {"byte_fallback": true}})");
  const auto without = Tokenizer::load(dir.path());
  EXPECT_THAT(std::string(without.status().message()), HasSubstr("tokenizer.json"));
  dir.write("tokenizer.model", model_);
  EXPECT_TRUE(Tokenizer::load(dir.path()).ok());
}

}  // namespace
}  // namespace pbserve::test
