// What tokenizer.json may say: every spelling that is understood, every refusal by name, and
// corrupt files.
#include "models/tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <iterator>

#include "models/tokenizer/byte_level.h"
#include "tests/support/temp_dir.h"

namespace pbserve::test {
namespace {

using models::Tokenizer;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// 256 bytes as ids 0-255, then "ab" = 256, "abc" = 257, "bc" = 258, and the special "<e>" = 259.
json small_file() {
  json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    vocab[models::byte_level_encode(static_cast<unsigned char>(byte))] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab["bc"] = 258;
  const json end = {{"id", 259},       {"content", "<e>"}, {"single_word", false},
                    {"lstrip", false}, {"rstrip", false},  {"normalized", false},
                    {"special", true}};
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", {end}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c", "b c"}}}}};
}

using Change = std::function<void(json&)>;

absl::StatusOr<std::unique_ptr<Tokenizer>> load(const Change& change) {
  json file = small_file();
  change(file);
  // Through text, as a file comes: numbers made in C++ are signed, those of a parser are not.
  return models::tokenizer_from_json(json::parse(file.dump()), "f/tokenizer.json");
}

std::vector<int32_t> encode(std::string_view text, const Change& change) {
  const auto tokenizer = load(change);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *(*tokenizer)->encode(text, {}) : std::vector<int32_t>();
}

std::string refusal(const Change& change) {
  const auto tokenizer = load(change);
  EXPECT_FALSE(tokenizer.ok());
  const std::string message(tokenizer.status().message());
  EXPECT_THAT(message, HasSubstr("f/tokenizer.json"));
  return message;
}

void leave(json&) {}

// Special tokens that are looked for in normalised text keep out of content too, although its place
// moves there.
TEST(TokenizerJson, NormalizedSpecialTokensKeepOutOfContent) {
  const auto tokenizer = load([](json& file) {
    file["normalizer"] = {{"type", "NFC"}};
    file["added_tokens"][0]["normalized"] = true;
  });
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = [&](std::string_view text, std::vector<models::TextSpan> content) {
    std::vector<int32_t> found = *(*tokenizer)->encode(text, {.content = content});
    std::erase_if(found, [](int32_t id) { return id != 259; });
    return found.size();
  };
  const std::string text = "<e>e\u0301<e><e>";  // the accent is two bytes, and none once composed
  EXPECT_EQ(ids(text, {}), 3u);
  EXPECT_EQ(ids(text, {{3, 9}}), 2u);
  EXPECT_EQ(ids(text, {{0, 3}}), 2u);
  EXPECT_EQ(ids(text, {{9, 12}}), 2u);
  EXPECT_EQ(ids(text, {{0, 12}}), 0u);
  EXPECT_EQ(ids(text, {{4, 6}}), 0u);  // the accent joins the template's letter
}

TEST(TokenizerJson, MergesByRank) {
  EXPECT_THAT(encode("abc", leave), ElementsAre(257));
  EXPECT_THAT(encode("bc", leave), ElementsAre(258));
  EXPECT_THAT(encode("abab", leave), ElementsAre(256, 256));
  EXPECT_THAT(encode("", leave), ElementsAre());
}

TEST(TokenizerJson, MergesAsPairs) {
  const Change pairs = [](json& file) {
    file["model"]["merges"] = json::parse(R"([["b", "c"], ["a", "b"]])");
  };
  EXPECT_THAT(encode("abc", pairs), ElementsAre('a', 258));
}

TEST(TokenizerJson, IgnoreMergesKeepsWholeTokens) {
  const Change without = [](json& file) { file["model"]["merges"] = json::array(); };
  const Change ignoring = [&](json& file) {
    without(file);
    file["model"]["ignore_merges"] = true;
  };
  EXPECT_THAT(encode("abc", without), ElementsAre('a', 'b', 'c'));
  EXPECT_THAT(encode("abc", ignoring), ElementsAre(257));
  EXPECT_THAT(encode("abcab", ignoring), ElementsAre('a', 'b', 'c', 'a', 'b'));
}

TEST(TokenizerJson, PrefixSpaceAndNormalizer) {
  const Change change = [](json& file) {
    file["pre_tokenizer"]["add_prefix_space"] = true;
    file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  };
  EXPECT_THAT(encode("ab", change), ElementsAre(' ', 256));
  EXPECT_THAT(encode(" e\u0301", change), ElementsAre(' ', 0xC3, 0xA9));
  EXPECT_THAT(encode("a<e>b", change), ElementsAre(' ', 'a', 259, ' ', 'b'));
}

TEST(TokenizerJson, PostProcessorsWrapEachOther) {
  const auto wrap = [](const char* name) {
    return json{
        {"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", name}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
          {{"SpecialToken", {{"id", name}, {"type_id", 0}}}}}},
        {"pair", json::array()},
        {"special_tokens", {{name, {{"id", name}, {"ids", {name[0]}}, {"tokens", {name}}}}}}};
  };
  const Change change = [&](json& file) {
    file["post_processor"] = {{"type", "Sequence"},
                              {"processors", {{{"type", "ByteLevel"}}, wrap("x"), wrap("y")}}};
  };
  EXPECT_THAT(encode("ab", change), ElementsAre('y', 'x', 256, 'x', 'y'));
  const auto tokenizer = load(change);
  EXPECT_THAT(*(*tokenizer)->encode("ab", {.add_special_tokens = false}), ElementsAre(256));
}

TEST(TokenizerJson, NormalizedAddedTokensAreFoundAfterNormalisation) {
  const Change change = [](json& file) {
    file["normalizer"] = {{"type", "NFC"}};
    file["added_tokens"][0]["content"] = "e\u0301";
    file["added_tokens"][0]["normalized"] = true;
  };
  EXPECT_THAT(encode("a\u00E9", change), ElementsAre('a', 259));
  EXPECT_THAT(encode("ae\u0301", change), ElementsAre('a', 259));
}

TEST(TokenizerJson, TokensByTextAndById) {
  const auto tokenizer = load(leave);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->vocab_size(), 260);
  EXPECT_EQ((*tokenizer)->token_id("<e>"), 259);
  EXPECT_EQ((*tokenizer)->token_id("abc"), 257);
  EXPECT_EQ((*tokenizer)->token_id("nothing"), std::nullopt);
  EXPECT_TRUE((*tokenizer)->is_special(259));
  EXPECT_FALSE((*tokenizer)->is_special(257));
  EXPECT_FALSE((*tokenizer)->is_special(-1));
  EXPECT_EQ((*tokenizer)->token_bytes(0xE9), "\xE9");
  EXPECT_EQ((*tokenizer)->token_bytes(260), "");
}

TEST(TokenizerJson, TextIsChecked) {
  const auto tokenizer = load(leave);
  const auto broken = (*tokenizer)->encode("abc\xFFx", {});
  EXPECT_EQ(broken.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("byte 3"));
  const auto large = (*tokenizer)->encode(std::string(Tokenizer::kTextBytesMax + 1, 'a'), {});
  EXPECT_EQ(large.status().code(), absl::StatusCode::kInvalidArgument);
}

struct Refused {
  const char* path;   // JSON pointer
  const char* value;  // JSON
  const char* named;  // in the message
};

class TokenizerJsonRefusal : public testing::TestWithParam<Refused> {};

TEST_P(TokenizerJsonRefusal, NamesFieldAndValue) {
  const Refused& refused = GetParam();
  const std::string message = refusal(
      [&](json& file) { file[json::json_pointer(refused.path)] = json::parse(refused.value); });
  EXPECT_THAT(message, HasSubstr(refused.named));
}

INSTANTIATE_TEST_SUITE_P(
    Unsupported, TokenizerJsonRefusal,
    testing::Values(
        Refused{"/version", R"("2.0")", "2.0"},
        Refused{"/truncation", R"({"max_length": 5})", "truncation"},
        Refused{"/padding", R"({"strategy": "BatchLongest"})", "padding"},
        Refused{"/surprise", "1", "surprise"}, Refused{"/model/surprise", "1", "surprise"},
        Refused{"/model/type", R"("Unigram")", "Unigram"},
        Refused{"/model/dropout", "0.1", "dropout"},
        Refused{"/model/byte_fallback", "true", "byte_fallback"},
        Refused{"/model/continuing_subword_prefix", R"("##")", "continuing_subword_prefix"},
        Refused{"/model/end_of_word_suffix", R"("</w>")", "end_of_word_suffix"},
        Refused{"/normalizer", R"({"type": "NFKC"})", "normalizer.type: 'NFKC'"},
        Refused{"/normalizer",
                R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]})",
                "normalizers[1].type: 'Lowercase'"},
        Refused{"/pre_tokenizer", "null", "ByteLevel"},
        Refused{"/pre_tokenizer", R"({"type": "Metaspace"})", "pre_tokenizer.type: 'Metaspace'"},
        Refused{"/pre_tokenizer",
                R"({"type": "Sequence", "pretokenizers": [
                   {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"}]})",
                "pretokenizers[0].pattern"},
        Refused{"/pre_tokenizer",
                R"({"type": "Split", "pattern": {"String": "x"}, "behavior": "Sometimes"})",
                "'Sometimes'"},
        Refused{"/pre_tokenizer", R"({"type": "Split", "pattern": {}, "behavior": "Isolated"})",
                "pattern"},
        Refused{"/pre_tokenizer",
                R"({"type": "Sequence", "pretokenizers": [
                   {"type": "ByteLevel"}, {"type": "Digits"}]})",
                "behind ByteLevel"},
        Refused{"/post_processor", R"({"type": "BertProcessing"})", "'BertProcessing'"},
        Refused{"/post_processor",
                R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}]})", "'B'"},
        Refused{"/post_processor",
                R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]})",
                "<s>"},
        Refused{"/decoder", R"({"type": "Metaspace"})", "'Metaspace'"},
        Refused{"/decoder", "null", "decoder"}));

INSTANTIATE_TEST_SUITE_P(
    Corrupt, TokenizerJsonRefusal,
    testing::Values(
        Refused{"", "[]", "object"}, Refused{"/model", "null", "model"},
        Refused{"/model", "[]", "model"}, Refused{"/model/vocab", "{}", "vocab"},
        Refused{"/model/vocab", "[1]", "vocab"}, Refused{"/model/vocab/ab", "-1", "vocab.ab"},
        Refused{"/model/vocab/ab", "4294967296", "vocab.ab"},
        Refused{"/model/vocab/ab", "1.5", "vocab.ab"}, Refused{"/model/vocab/ab", "255", "twice"},
        Refused{"/model/merges", "{}", "merges"}, Refused{"/model/merges/1", "5", "merges[1]"},
        Refused{"/model/merges/1", R"("ab")", "merges[1]"},
        Refused{"/model/merges/1", R"("a b c")", "merges[1]"},
        Refused{"/model/merges/1", R"(["a"])", "merges[1]"},
        Refused{"/model/merges/1", R"("a z")", "merges[1]"},
        Refused{"/added_tokens", "{}", "added_tokens"},
        Refused{"/added_tokens/0/id", "300", "added_tokens[0].id: 300"},
        Refused{"/added_tokens/0/id", R"("a")", "id"},
        Refused{"/added_tokens/0/content", R"("")", "content"},
        Refused{"/added_tokens/0/lstrip", "null", "lstrip"},
        Refused{"/added_tokens/0/surprise", "1", "surprise"},
        Refused{"/normalizer", R"({"type": "Sequence"})", "normalizers"},
        Refused{"/post_processor", R"({"type": "TemplateProcessing", "single": 5})", "single"},
        Refused{"/post_processor",
                R"({"type": "TemplateProcessing", "single": [
                    {"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
                    "special_tokens": {"x": {"ids": [260]}}})",
                "260"}));

// A vocabulary without tokens for '-' and 0x04; others have their ids.
void leave_bytes_out(json& file) {
  json& vocab = file["model"]["vocab"];
  vocab.erase("-");
  vocab.erase(models::byte_level_encode(4));
  vocab["zz"] = '-';
  vocab["zzz"] = 4;
}

TEST(TokenizerJson, BytesWithoutATokenAreDropped) {
  EXPECT_EQ((*load(leave))->num_dropped_bytes(), 0);
  EXPECT_EQ((*load(leave_bytes_out))->num_dropped_bytes(), 2);
  EXPECT_THAT(encode("-", leave_bytes_out), ElementsAre());
  EXPECT_THAT(encode("x\x04y", leave_bytes_out), ElementsAre('x', 'y'));
  EXPECT_THAT(encode("-<e>-", leave_bytes_out), ElementsAre(259));
}

// One word each, below and above the length up to which all pairs are scanned.
TEST(TokenizerJson, NeighboursOfADroppedByteMerge) {
  const Change one_word = [](json& file) {
    leave_bytes_out(file);
    file["pre_tokenizer"]["use_regex"] = false;
  };
  EXPECT_THAT(encode("-a-b-c-", one_word), ElementsAre(257));
  EXPECT_THAT(encode("a" + std::string(100, '-') + "bc", one_word), ElementsAre(257));
  EXPECT_THAT(encode(std::string(100, '-'), one_word), ElementsAre());
  EXPECT_THAT(encode(std::string(100, '-') + "x", one_word), ElementsAre('x'));
}

TEST(TokenizerJson, TheUnknownTokenStandsForBytesWithoutOne) {
  const Change unknown = [](json& file) {
    leave_bytes_out(file);
    file["model"]["unk_token"] = "bc";
  };
  EXPECT_EQ((*load(unknown))->num_dropped_bytes(), 0);
  EXPECT_THAT(encode("x--", unknown), ElementsAre('x', 258, 258));
  const auto refused = [&](const char* key, const json& value) {
    return refusal([&](json& file) {
      unknown(file);
      file["model"][key] = value;
    });
  };
  EXPECT_THAT(refused("unk_token", "nothing"), HasSubstr("model.unk_token: 'nothing'"));
  EXPECT_THAT(refused("fuse_unk", true), HasSubstr("model.fuse_unk: true"));
  // Where every byte has a token nothing is ever unknown.
  EXPECT_TRUE(load([](json& file) { file["model"]["fuse_unk"] = true; }).ok());
}

TEST(TokenizerJson, RepeatedAddedTokensAreRefused) {
  EXPECT_THAT(refusal([](json& file) {
                file["added_tokens"].push_back(file["added_tokens"][0]);
                file["added_tokens"][1]["id"] = 260;
              }),
              HasSubstr("twice"));
}

TEST(TokenizerJson, FilesThatAreNoJson) {
  const TempDir dir;
  EXPECT_EQ(Tokenizer::load(dir.path()).status().code(), absl::StatusCode::kNotFound);
  for (const std::string& text : {std::string(), std::string("{"), std::string("\xFF\xFE"),
                                  std::string(100000, '['), std::string("null")}) {
    dir.write("tokenizer.json", text);
    const absl::Status status = Tokenizer::load(dir.path()).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(dir.path() + "/tokenizer.json"));
  }
}

TEST(TokenizerJson, TruncationsOfARealFile) {
  const TempDir dir;
  std::ifstream file(std::string(PBSERVE_SOURCE_DIR) + "/models/demo/tokenizer.json");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  ASSERT_GT(text.size(), 100000u);
  for (size_t size = 0; size + 1 < text.size(); size += 7919) {
    dir.write("tokenizer.json", text.substr(0, size));
    EXPECT_FALSE(Tokenizer::load(dir.path()).ok()) << size;
  }
}

}  // namespace
}  // namespace pbserve::test
