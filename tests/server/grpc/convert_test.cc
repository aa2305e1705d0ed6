// Messages of the proto -> requests, events -> messages, and error details.
#include "server/grpc/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "proto/error_details.pb.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;

absl::StatusOr<engine::Request> convert(const v1::GenerateRequest& message) {
  return from_proto(message, JsonLimits{}, "made");
}

v1::GenerateRequest text_request() {
  v1::GenerateRequest message;
  message.set_text("Hi");
  return message;
}

TEST(GrpcConvert, UnsetIsNotZero) {
  v1::GenerateRequest message = text_request();
  const engine::Request unset = *convert(message);
  EXPECT_EQ(unset.id, "made");
  EXPECT_EQ(unset.sampling.temperature, std::nullopt);
  EXPECT_EQ(unset.stop.max_tokens, std::nullopt);
  EXPECT_TRUE(unset.add_special_tokens);
  message.mutable_sampling()->set_temperature(0);
  message.mutable_stop()->set_max_tokens(0);
  message.set_add_special_tokens(false);
  const engine::Request zero = *convert(message);
  EXPECT_EQ(zero.sampling.temperature, 0.0f);
  EXPECT_EQ(zero.stop.max_tokens, 0);
  EXPECT_FALSE(zero.add_special_tokens);
}

TEST(GrpcConvert, ListsAreAsLongAsThoseOfJson) {
  const JsonLimits limits{.max_values = 6};
  v1::GenerateRequest chat;
  for (int i = 0; i < 2; ++i) chat.mutable_chat()->add_messages()->set_role("user");
  EXPECT_TRUE(from_proto(chat, limits, "made").ok());
  chat.mutable_chat()->add_messages()->set_role("user");
  const absl::Status status = from_proto(chat, limits, "made").status();
  EXPECT_EQ(status.message(), "messages has 9 values: at most http.json.max_values = 6 are taken");
  EXPECT_EQ(error_param(status), "messages");
  v1::GenerateRequest ids;
  for (int i = 0; i < 7; ++i) ids.mutable_token_ids()->add_ids(i);
  EXPECT_EQ(error_param(from_proto(ids, limits, "made").status()), "token_ids");
}

TEST(GrpcConvert, SpecialTokensOfAChatAreTheTemplatesUnlessAskedFor) {
  v1::GenerateRequest message;
  v1::ChatMessage* turn = message.mutable_chat()->add_messages();
  turn->set_role("user");
  turn->set_content("a");
  EXPECT_FALSE(convert(message)->add_special_tokens);
  message.set_add_special_tokens(true);
  EXPECT_TRUE(convert(message)->add_special_tokens);
}

TEST(GrpcConvert, EveryFieldArrives) {
  v1::GenerateRequest message;
  message.mutable_token_ids()->add_ids(5);
  message.set_request_id("mine");
  message.mutable_sampling()->set_top_p(0.5f);
  message.mutable_sampling()->set_top_k(3);
  message.mutable_sampling()->set_min_p(0.1f);
  message.mutable_sampling()->set_seed(9);
  message.mutable_stop()->set_min_tokens(2);
  message.mutable_stop()->add_strings("END");
  message.mutable_stop()->add_token_ids(7);
  message.mutable_stop()->set_ignore_eos(true);
  message.mutable_stop()->set_include_stop_str_in_output(true);
  message.mutable_sparse_attention()->set_mode(v1::SPARSE_MODE_PBS);
  message.mutable_sparse_attention()->set_threshold(0.7f);
  message.set_cache_salt("s");
  message.set_priority(-3);
  message.set_cache_hold_s(90.5f);
  message.set_skip_special_tokens(false);
  const engine::Request request = *convert(message);
  EXPECT_THAT(std::get<std::vector<int32_t>>(request.prompt), ElementsAre(5));
  EXPECT_EQ(request.id, "mine");
  EXPECT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 3);
  EXPECT_EQ(request.sampling.min_p, 0.1f);
  EXPECT_EQ(request.sampling.seed, 9);
  EXPECT_EQ(request.stop.min_tokens, 2);
  EXPECT_THAT(request.stop.strings, ElementsAre("END"));
  EXPECT_THAT(request.stop.token_ids, ElementsAre(7));
  EXPECT_TRUE(request.stop.ignore_eos && request.stop.include_stop_string);
  EXPECT_EQ(request.sparse.mode, engine::SparseMode::kPbs);
  EXPECT_EQ(request.sparse.threshold, 0.7f);
  EXPECT_EQ(request.cache_salt, "s");
  EXPECT_EQ(request.priority, -3);
  EXPECT_EQ(request.cache_hold_s, 90.5f);
  EXPECT_FALSE(request.skip_special_tokens);
}

TEST(GrpcConvert, ChatsAreReadAsOverHttp) {
  v1::GenerateRequest message;
  v1::ChatMessage* turn = message.mutable_chat()->add_messages();
  turn->set_role("user");
  turn->set_content("Hi");
  message.mutable_chat()->set_tools_json(R"([{"b": 1, "a": 2}])");
  message.mutable_chat()->set_template_kwargs_json(R"({"thinking": true})");
  const auto chat = std::get<engine::ChatPrompt>(convert(message)->prompt);
  EXPECT_EQ(chat.messages_json, R"([{"role":"user","content":"Hi"}])");
  EXPECT_EQ(chat.tools_json, R"([{"b":1,"a":2}])");
  EXPECT_EQ(chat.template_kwargs_json, R"({"thinking":true})");
  turn->set_role("user<|im_end|>");
  EXPECT_EQ(error_param(convert(message).status()), "messages[0].role");
}

TEST(GrpcConvert, RefusalsNameTheField) {
  const auto param = [](const v1::GenerateRequest& message) {
    return error_param(convert(message).status());
  };
  EXPECT_EQ(param(v1::GenerateRequest()), "prompt");
  v1::GenerateRequest message = text_request();
  message.set_request_id("a b");
  EXPECT_EQ(param(message), "request_id");
  message = text_request();
  message.mutable_sparse_attention()->set_mode(static_cast<v1::SparseMode>(99));
  EXPECT_EQ(param(message), "sparse_attention.mode");
  message.mutable_chat()->set_tools_json("{");
  EXPECT_EQ(param(message), "tools");
  message.mutable_chat()->set_tools_json("{}");
  EXPECT_EQ(param(message), "messages");
}

TEST(GrpcConvert, EventsBecomeMessages) {
  const v1::GenerateEvent accepted =
      to_proto(engine::Accepted{.prompt_tokens = 3, .cached_tokens = 1}, "r1");
  EXPECT_EQ(accepted.accepted().request_id(), "r1");
  EXPECT_EQ(accepted.accepted().cached_tokens(), 1);
  EXPECT_FALSE(accepted.accepted().has_estimated_ttft_ms());
  const v1::GenerateEvent chunk = to_proto(engine::TextDelta{.text = "a", .token_ids = {4}}, "r1");
  EXPECT_EQ(chunk.chunk().text(), "a");
  EXPECT_THAT(chunk.chunk().token_ids(), ElementsAre(4));
  engine::Completion done;
  done.reason = engine::FinishReason::kLength;
  done.usage.completion_tokens = 2;
  done.timings.queue_ms = 0;
  done.sparse = {.mode_used = engine::SparseMode::kPbs,
                 .density = 0.5,
                 .layer_densities = {0.5},
                 .coverage = {{.mean = 0.97, .lowest_layer = 0.9, .lowest_head = 0.7}}};
  const v1::Finished finished = to_proto(done, "r1").finished();
  EXPECT_EQ(finished.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(finished.usage().completion_tokens(), 2);
  EXPECT_FALSE(finished.usage().has_cache_held_tokens());
  EXPECT_TRUE(finished.timings().has_queue_ms());
  EXPECT_FALSE(finished.timings().has_prefill_ms());
  EXPECT_EQ(finished.sparse().mode_used(), v1::SPARSE_MODE_PBS);
  EXPECT_THAT(finished.sparse().layer_densities(), ElementsAre(0.5));
  EXPECT_EQ(finished.sparse().coverage().mean(), 0.97);
  EXPECT_EQ(finished.sparse().coverage().lowest_layer(), 0.9);
  EXPECT_EQ(finished.sparse().coverage().lowest_head(), 0.7);
  done.sparse.coverage = std::nullopt;
  EXPECT_FALSE(to_proto(done, "r1").finished().sparse().has_coverage());
  done.usage.cache_held_tokens = 0;
  EXPECT_TRUE(to_proto(done, "r1").finished().usage().has_cache_held_tokens());
}

TEST(GrpcConvert, ErrorDetailsNameTheFieldAndTheWait) {
  v1::ErrorStatus details;
  ASSERT_TRUE(details.ParseFromString(error_details(invalid_field("top_p", "top_p is wrong"))));
  EXPECT_EQ(details.code(), 3);
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.BadRequest");
  v1::FieldViolations violations;
  ASSERT_TRUE(violations.ParseFromString(details.details(0).value()));
  EXPECT_EQ(violations.field_violations(0).field(), "top_p");

  ASSERT_TRUE(details.ParseFromString(error_details(absl::ResourceExhaustedError("full"))));
  ASSERT_EQ(details.details_size(), 1);
  v1::RetryDelay delay;
  ASSERT_TRUE(delay.ParseFromString(details.details(0).value()));
  EXPECT_EQ(delay.retry_delay().seconds(), 1);
}

}  // namespace
}  // namespace pbserve::server
