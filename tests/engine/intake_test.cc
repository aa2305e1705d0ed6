// What becomes of a client's text where the vocabulary lacks bytes and the model lacks tokens.
#include "engine/intake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "models/field_error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace pbserve::engine {
namespace {

using test::kTinyFirstByte;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kDropped = '-';  // a byte that the vocabulary has no token for

// Every byte but kDropped is one token; the model knows those below 'z'.
class IntakeTest : public ::testing::Test {
 protected:
  static std::unique_ptr<models::Tokenizer> load_tokenizer() {
    const test::TempDir folder;
    nlohmann::json file = test::tiny_tokenizer();
    file["model"]["vocab"].erase(std::string(1, kDropped));
    folder.write("tokenizer.json", file.dump());
    return *models::Tokenizer::load(folder.path());
  }

  Request request(Prompt prompt) const {
    Request request;
    request.prompt = std::move(prompt);
    return request;
  }
  std::string refusal(Prompt prompt) const {
    const absl::Status status = intake_.admit(request(std::move(prompt)), 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  std::unique_ptr<models::Tokenizer> tokenizer_ = load_tokenizer();
  Intake intake_{{},
                 {.vocab_size = kTinyFirstByte + 'z', .max_model_len = 100},
                 *tokenizer_,
                 *models::ChatTemplate::parse("{{ messages[0].content }}", "", ""),
                 {}};
};

TEST_F(IntakeTest, BytesWithoutATokenAreDropped) {
  const auto spec = intake_.admit(request("a-b"), 1);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->prompt, ElementsAre(kTinyFirstByte + 'a', kTinyFirstByte + 'b'));
}

TEST_F(IntakeTest, ATextOfWhichNothingIsLeftIsRefused) {
  EXPECT_EQ(refusal("--"),
            "prompt has no tokens (the vocabulary has none for its text), at least 1 is needed");
  EXPECT_EQ(refusal(""), "prompt has no tokens, at least 1 is needed");
  EXPECT_THAT(*intake_.tokenize("--", true), ElementsAre());  // not an error by itself
}

TEST_F(IntakeTest, ATokenWithoutAnEmbeddingIsNamedAsTheClientSentIt) {
  EXPECT_EQ(refusal("az"),
            "prompt: the text has 'z', token 125 of the tokenizer; the model's tokens end at 124");
  EXPECT_THAT(refusal(ChatPrompt{R"([{"role": "user", "content": "z"}])", "", ""}),
              HasSubstr("messages: the text has 'z'"));
  EXPECT_THAT(refusal(std::vector<int32_t>{5, kTinyFirstByte + 'z'}),
              HasSubstr("prompt[1] is 125, must be a token id in [0, 124]"));
}

// The template's markup is a token, the same text in a message is not, unless the server allows it.
TEST_F(IntakeTest, SpecialTokensInContentAreText) {
  const std::string end = "<|im_end|>";
  const ChatPrompt chat{"[{\"role\": \"user\", \"content\": \"" + end + "\"}]", "", ""};
  const auto specials = [&](bool allowed) {
    EngineConfig config;
    config.model.special_tokens_in_content = allowed;
    const Intake intake(
        config, {.vocab_size = kTinyFirstByte + 256, .max_model_len = 100}, *tokenizer_,
        *models::ChatTemplate::parse("{{ messages[0].content }}" + end, "", ""), {});
    std::vector<int32_t> ids = *intake.tokenize(chat, /*add_special_tokens=*/true);
    std::erase_if(ids, [&](int32_t id) { return !tokenizer_->is_special(id); });
    return ids.size();
  };
  EXPECT_EQ(specials(false), 1u);
  EXPECT_EQ(specials(true), 2u);
}

// A chat's template writes the beginning of text itself; a client may still ask for the
// tokenizer's.
TEST(IntakeSpecialTokens, AreAddedToAChatWhenAskedFor) {
  const test::TempDir folder;
  nlohmann::json file = test::tiny_tokenizer();
  file["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single",
                             {{{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}},
                              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
                            {"pair", nlohmann::json::array()},
                            {"special_tokens",
                             {{"<|im_start|>",
                               {{"id", "<|im_start|>"},
                                {"ids", {test::kTinyTurnBegin}},
                                {"tokens", {"<|im_start|>"}}}}}}};
  folder.write("tokenizer.json", file.dump());
  const auto tokenizer = models::Tokenizer::load(folder.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Intake intake({}, {.vocab_size = test::kTinyVocabSize, .max_model_len = 100}, **tokenizer,
                      *models::ChatTemplate::parse("{{ messages[0].content }}", "", ""), {});
  const ChatPrompt chat{R"([{"role": "user", "content": "a"}])", "", ""};
  EXPECT_THAT(*intake.tokenize(chat, false), ElementsAre(kTinyFirstByte + 'a'));
  EXPECT_THAT(*intake.tokenize(chat, true),
              ElementsAre(test::kTinyTurnBegin, kTinyFirstByte + 'a'));
}

// The key of cached pages holds every digit of what they were made with.
TEST(AttentionSignature, ThresholdsThatDifferAtAllDiffer) {
  const float threshold = 0.93300003f;
  const float next = std::nextafter(threshold, 1.0f);
  EXPECT_NE(attention_signature({}, threshold), attention_signature({}, next));
  PbsOptions forced;
  forced.force_density = 0.22000001f;
  PbsOptions other;
  other.force_density = std::nextafter(forced.force_density, 1.0f);
  EXPECT_NE(attention_signature(forced, 0.9f), attention_signature(other, 0.9f));
}

// Which field an error is about stands beside its message.
TEST_F(IntakeTest, ErrorsCarryTheirField) {
  const auto field = [&](const Request& bad) {
    const auto payload = intake_.admit(bad, 1).status().GetPayload(models::kFieldPayload);
    return payload ? std::string(*payload) : "(none)";
  };
  const auto with = [&](const std::function<void(Request&)>& change) {
    Request changed = request("a");
    change(changed);
    return field(changed);
  };
  EXPECT_EQ(field(request("")), "prompt");
  EXPECT_EQ(field(request(std::string(5000, 'a'))), "prompt");
  EXPECT_EQ(field(request("az")), "prompt");
  EXPECT_EQ(field(request("\xff")), "prompt");
  EXPECT_EQ(field(request(std::vector<int32_t>{-1})), "prompt");
  EXPECT_EQ(field(request(ChatPrompt{"[]", "", ""})), "messages");
  EXPECT_EQ(field(request(ChatPrompt{R"([{"role": 1}])", "", ""})), "messages[0].role");
  EXPECT_EQ(with([](Request& r) { r.stop.max_tokens = 0; }), "max_tokens");
  EXPECT_EQ(with([](Request& r) { r.stop.min_tokens = 1000; }), "min_tokens");
  EXPECT_EQ(with([](Request& r) { r.stop.strings = {""}; }), "stop");
  EXPECT_EQ(with([](Request& r) { r.stop.strings = {std::string(1000, 'x')}; }), "stop");
  EXPECT_EQ(with([](Request& r) { r.stop.token_ids = {-1}; }), "stop_token_ids");
  EXPECT_EQ(with([](Request& r) { r.sampling.temperature = 3; }), "temperature");
  EXPECT_EQ(with([](Request& r) { r.sampling.top_p = 0; }), "top_p");
  EXPECT_EQ(with([](Request& r) { r.sampling.top_k = -1; }), "top_k");
  EXPECT_EQ(with([](Request& r) { r.sampling.min_p = 2; }), "min_p");
  EXPECT_EQ(with([](Request& r) { r.sparse.threshold = 2; }), "sparse_attention.threshold");
  EXPECT_EQ(with([](Request& r) { r.priority = 17; }), "priority");
  EXPECT_EQ(with([](Request& r) { r.priority = -17; }), "priority");
  EXPECT_EQ(with([](Request& r) { r.cache_hold_s = 3601; }), "cache_hold_s");
  EXPECT_EQ(with([](Request& r) { r.cache_hold_s = -1; }), "cache_hold_s");
  EXPECT_EQ(with([](Request& r) { r.cache_hold_s = std::nanf(""); }), "cache_hold_s");
  EXPECT_EQ(with([](Request& r) { r.cache_salt = std::string(5000, 'x'); }), "cache_salt");
}

// Requests of one signature share cached pages: it names what shaped them.
TEST(AttentionSignature, NamesTheScorerAndItsSelector) {
  PbsOptions pbs;
  EXPECT_THAT(attention_signature(pbs, 0.5f), HasSubstr("pbs mass error_bound 0.5 span 1024"));
  pbs.params.scorer = kernels::PbsScorer::kQuery;
  pbs.params = pbs_params(pbs);
  EXPECT_THAT(attention_signature(pbs, 0.5f), HasSubstr("pbs query top_p 0.5 span 1024"));
}

}  // namespace
}  // namespace pbserve::engine
