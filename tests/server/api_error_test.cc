// The one mapping from Status to HTTP and gRPC, request ids and the body budget.
#include "server/api_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "models/field_error.h"
#include "server/byte_budget.h"
#include "server/request_id.h"

namespace pbserve::server {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(ApiError, StatusBecomesHttp) {
  const std::pair<absl::Status, int> cases[] = {{absl::InvalidArgumentError("x"), 400},
                                                {invalid_api_key(), 401},
                                                {model_not_found("m"), 404},
                                                {unknown_route("GET", "/x"), 404},
                                                {method_not_allowed("GET", "/x", "POST"), 405},
                                                {read_timeout("body", 3), 408},
                                                {body_too_large(5), 413},
                                                {unsupported_media_type("text/x"), 415},
                                                {absl::ResourceExhaustedError("x"), 429},
                                                {headers_too_large(5), 431},
                                                {chunk_frame_too_large(5), 431},
                                                {body_not_taken("GET", "/x"), 400},
                                                {client_left(), 499},
                                                {out_of_memory(), 503},
                                                {absl::CancelledError("x"), 499},
                                                {absl::InternalError("x"), 500},
                                                {absl::UnimplementedError("x"), 501},
                                                {not_ready(3), 503},
                                                {absl::DeadlineExceededError("x"), 504}};
  for (const auto& [status, expected] : cases) {
    EXPECT_EQ(http_status(status), expected) << status;
    EXPECT_EQ(to_http_reply(status).status, expected);
    EXPECT_EQ(grpc_code(status), static_cast<int>(status.code()));
  }
}

TEST(ApiError, BodyIsOpenAis) {
  const auto body =
      nlohmann::json::parse(to_error_body(invalid_field("top_p", "top_p is \"9\"\n")));
  EXPECT_EQ(body["error"]["message"], "top_p is \"9\"\n");
  EXPECT_EQ(body["error"]["type"], "invalid_request_error");
  EXPECT_EQ(body["error"]["param"], "top_p");
  EXPECT_TRUE(body["error"]["code"].is_null());
  EXPECT_EQ(nlohmann::json::parse(to_error_body(model_not_found("m")))["error"]["code"],
            "model_not_found");
}

TEST(ApiError, BodyIsUtf8WhateverTheMessage) {
  EXPECT_TRUE(nlohmann::json::accept(to_error_body(absl::InvalidArgumentError("\xff\xc3"))));
}

TEST(ApiError, HeadersSayWhatToDo) {
  EXPECT_THAT(to_http_reply(absl::ResourceExhaustedError("x")).headers,
              Contains(Pair("Retry-After", "1")));
  EXPECT_THAT(to_http_reply(not_ready(4.2)).headers, Contains(Pair("Retry-After", "5")));
  EXPECT_THAT(to_http_reply(out_of_memory()).headers, Contains(Pair("Retry-After", "1")));
  EXPECT_THAT(to_http_reply(method_not_allowed("GET", "/x", "POST")).headers,
              Contains(Pair("Allow", "POST")));
  EXPECT_THAT(to_http_reply(absl::InvalidArgumentError("x")).headers, IsEmpty());
}

// Never out of the message's words: where the error arises it is said what it is about.
TEST(ApiError, RetryAfterIsWhatTheStatusSaysWithinBounds) {
  const absl::Status full = absl::ResourceExhaustedError("x");
  EXPECT_EQ(retry_after_s(with_retry_after(full, 17.01)), 18);
  EXPECT_EQ(retry_after_s(with_retry_after(full, -3)), 1);
  EXPECT_EQ(retry_after_s(with_retry_after(full, 1e9)), 600);
  EXPECT_EQ(retry_after_s(with_retry_after(absl::InvalidArgumentError("x"), 17)), 0);
  EXPECT_EQ(retry_after_s(with_retry_after(body_too_large(1), 17)), 0) << "never, whatever waits";
}

TEST(ApiError, TheFieldOfAnEngineErrorIsItsPayload) {
  const absl::Status about = models::field_error("messages[2].role", "temperature is fine");
  EXPECT_EQ(error_param(about), "messages[2].role");
  EXPECT_EQ(error_param(models::about_field(about, "messages")), "messages[2].role");
  EXPECT_EQ(error_param(absl::InvalidArgumentError("temperature is 3")), "");
  EXPECT_EQ(error_param(models::about_field(absl::InternalError("x"), "prompt")), "");
}

TEST(RequestId, MadeOnesAreValidAndDiffer) {
  const std::string id = make_request_id();
  EXPECT_TRUE(check_request_id(id).ok()) << id;
  EXPECT_NE(id, make_request_id());
}

TEST(ByteBudget, LeasesGiveBack) {
  ByteBudget budget(100);
  {
    ByteBudget::Lease first(&budget);
    EXPECT_TRUE(first.grow_to(60));
    ByteBudget::Lease second(&budget);
    EXPECT_FALSE(second.grow_to(41));
    EXPECT_TRUE(second.grow_to(40));
    const ByteBudget::Lease moved = std::move(first);
    EXPECT_EQ(budget.held_bytes(), 100);
  }
  EXPECT_EQ(budget.held_bytes(), 0);
}

}  // namespace
}  // namespace pbserve::server
