// Engine results -> response bodies and stream chunks, as the OpenAI clients read them.
#include "server/openai/format.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace pbserve::server {
namespace {

OpenAiFormatter::Options options(OpenAiApi api) {
  return {.api = api,
          .request_id = "r1",
          .model = "demo",
          .fingerprint = "fp",
          .created_s = 5,
          .include_usage = false,
          .continuous_usage = false,
          .include_metrics = false};
}

engine::Completion completion() {
  engine::Completion done;
  done.reason = engine::FinishReason::kLength;
  done.usage = {.prompt_tokens = 10, .cached_tokens = 4, .completion_tokens = 2};
  done.timings.first_token_ms = 12;
  done.timings.mean_inter_token_ms = 4;
  done.sparse = {.mode_used = engine::SparseMode::kPbs,
                 .density = 0.25,
                 .layer_densities = {0.2, 0.3},
                 .coverage = {{.mean = 0.97, .lowest_layer = 0.9, .lowest_head = 0.7}}};
  return done;
}

// The payloads of a stream; "[DONE]" as a JSON string.
std::vector<Json> events(const std::string& sse) {
  std::vector<Json> parsed;
  const std::vector<std::string> blocks = absl::StrSplit(sse, "\n\n", absl::SkipEmpty());
  for (const std::string& block : blocks) {
    EXPECT_EQ(block.substr(0, 6), "data: ");
    const std::string payload = block.substr(6);
    parsed.push_back(payload == "[DONE]" ? Json(payload) : Json::parse(payload));
  }
  return parsed;
}

std::vector<Json> stream(const OpenAiFormatter::Options& format_options) {
  OpenAiFormatter formatter(format_options);
  std::string sse;
  formatter.on_accepted({.prompt_tokens = 10, .cached_tokens = 4});
  formatter.append_text({.text = "a\n", .token_ids = {1}}, &sse);
  formatter.append_text({.text = "", .token_ids = {2}}, &sse);
  formatter.append_finish(completion(), &sse);
  return events(sse);
}

TEST(OpenAiFormat, CompletionStream) {
  const std::vector<Json> chunks = stream(options(OpenAiApi::kCompletion));
  ASSERT_EQ(chunks.size(), 3);
  EXPECT_EQ(chunks[0]["id"], "cmpl-r1");
  EXPECT_EQ(chunks[0]["object"], "text_completion");
  EXPECT_EQ(chunks[0]["choices"][0]["text"], "a\n");
  EXPECT_TRUE(chunks[0]["choices"][0]["finish_reason"].is_null());
  EXPECT_FALSE(chunks[0].contains("usage"));
  EXPECT_EQ(chunks[1]["choices"][0]["text"], "");
  EXPECT_EQ(chunks[1]["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(chunks[2], "[DONE]");
}

TEST(OpenAiFormat, ChatStreamSendsTheRoleWithTheFirstText) {
  const std::vector<Json> chunks = stream(options(OpenAiApi::kChat));
  ASSERT_EQ(chunks.size(), 4);
  EXPECT_EQ(chunks[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], Json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(chunks[1]["choices"][0]["delta"], Json({{"content", "a\n"}}));
  EXPECT_EQ(chunks[2]["choices"][0]["delta"], Json::object());
  EXPECT_EQ(chunks[2]["choices"][0]["finish_reason"], "length");
}

TEST(OpenAiFormat, UsageChunkHasNoChoices) {
  OpenAiFormatter::Options with_usage = options(OpenAiApi::kChat);
  with_usage.include_usage = true;
  const std::vector<Json> chunks = stream(with_usage);
  ASSERT_EQ(chunks.size(), 5);
  EXPECT_TRUE(chunks[1].at("usage").is_null());
  EXPECT_EQ(chunks[3]["choices"], Json::array());
  EXPECT_EQ(chunks[3]["usage"]["total_tokens"], 12);
  EXPECT_EQ(chunks[3]["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
  EXPECT_FALSE(chunks[3]["usage"].contains("cache_held_tokens"));
}

TEST(OpenAiFormat, UsageTellsWhatAHoldKeptEvenIfThatIsNothing) {
  OpenAiFormatter::Options with_usage = options(OpenAiApi::kChat);
  with_usage.include_usage = true;
  OpenAiFormatter formatter(with_usage);
  engine::Completion done = completion();
  done.usage.cache_held_tokens = 0;
  std::string sse;
  formatter.append_finish(done, &sse);
  const std::vector<Json> chunks = events(sse);
  EXPECT_EQ(chunks[chunks.size() - 2]["usage"]["cache_held_tokens"], 0);
}

TEST(OpenAiFormat, ContinuousUsageCountsTokens) {
  OpenAiFormatter::Options continuous = options(OpenAiApi::kCompletion);
  continuous.continuous_usage = true;
  const std::vector<Json> chunks = stream(continuous);
  EXPECT_EQ(chunks[0]["usage"]["completion_tokens"], 1);
  EXPECT_EQ(chunks[0]["usage"]["prompt_tokens"], 10);
  EXPECT_EQ(chunks[1]["usage"]["completion_tokens"], 2);
}

TEST(OpenAiFormat, WholeResponses) {
  OpenAiFormatter::Options with_metrics = options(OpenAiApi::kCompletion);
  with_metrics.include_metrics = true;
  const Json text = Json::parse(OpenAiFormatter(with_metrics).response("abc", completion()));
  EXPECT_EQ(text["choices"][0]["text"], "abc");
  EXPECT_EQ(text["system_fingerprint"], "fp");
  EXPECT_EQ(text["usage"]["completion_tokens"], 2);
  EXPECT_EQ(text["metrics"]["time_to_first_token_ms"], 12);
  EXPECT_TRUE(text["metrics"]["queue_time_ms"].is_null());  // not reached
  EXPECT_EQ(text["metrics"]["tokens_per_second"], 250);
  EXPECT_EQ(text["metrics"]["sparse_attention"]["mode"], "pbs");
  EXPECT_EQ(text["metrics"]["sparse_attention"]["layer_densities"], Json({0.2, 0.3}));
  EXPECT_EQ(text["metrics"]["sparse_attention"]["coverage"], 0.97);
  EXPECT_EQ(text["metrics"]["sparse_attention"]["coverage_lowest_layer"], 0.9);
  EXPECT_EQ(text["metrics"]["sparse_attention"]["coverage_lowest_head"], 0.7);

  const Json chat =
      Json::parse(OpenAiFormatter(options(OpenAiApi::kChat)).response("abc", completion()));
  EXPECT_EQ(chat["object"], "chat.completion");
  EXPECT_EQ(chat["choices"][0]["message"], Json({{"role", "assistant"}, {"content", "abc"}}));
  EXPECT_FALSE(chat.contains("metrics"));
}

TEST(OpenAiFormat, StopStringsAreReported) {
  engine::Completion done = completion();
  done.reason = engine::FinishReason::kStop;
  done.matched_stop = "END";
  const Json body =
      Json::parse(OpenAiFormatter(options(OpenAiApi::kCompletion)).response("", done));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][0]["stop_reason"], "END");
}

TEST(OpenAiFormat, ProgressInLlamaCppsShape) {
  OpenAiFormatter formatter(options(OpenAiApi::kCompletion));
  std::string sse;
  formatter.on_accepted({.prompt_tokens = 10, .cached_tokens = 4});
  formatter.append_progress({.processed_tokens = 6, .total_tokens = 10, .elapsed_ms = 3}, &sse);
  const Json event = events(sse).at(0);
  EXPECT_EQ(event["choices"], Json::array());
  EXPECT_EQ(event["prompt_progress"]["processed"], 6);
  EXPECT_EQ(event["prompt_progress"]["cache"], 4);
  EXPECT_TRUE(event["prompt_progress"]["eta_ms"].is_null());
}

TEST(OpenAiFormat, FingerprintFollowsTheSettings) {
  EXPECT_EQ(system_fingerprint("1", "a"), system_fingerprint("1", "a"));
  EXPECT_NE(system_fingerprint("1", "a"), system_fingerprint("1", "b"));
  EXPECT_NE(system_fingerprint("1", "a"), system_fingerprint("2", "a"));
}

}  // namespace
}  // namespace pbserve::server
