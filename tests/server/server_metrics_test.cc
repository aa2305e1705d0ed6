// What requests leave in the metrics, and what a client cannot put there.
#include "server/metrics/server_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RequestRecord http_record(const std::string& method, const std::string& handler, int status) {
  RequestRecord record;
  record.transport = method.empty() ? Transport::kGrpc : Transport::kHttp;
  record.method = method;
  record.generates = handler == "/v1/completions";
  record.handler = handler;
  record.status = status;
  record.ended = record.arrived + std::chrono::milliseconds(20);
  if (status >= 400) record.error_reason = status == 401 ? "invalid_api_key" : "invalid";
  return record;
}

TEST(ServerMetrics, HttpAnswersByHandlerMethodAndClass) {
  ServerMetrics metrics("demo", "pbserve");
  metrics.observe(http_record("POST", "/v1/completions", 200));
  metrics.observe(http_record("POST", "/v1/completions", 204));
  metrics.observe(http_record("GET", "/v1/models", 401));
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("http_requests_total{handler=\"/v1/completions\",method=\"POST\","
                              "status=\"2xx\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("http_request_duration_seconds_bucket{handler=\"/v1/completions\","
                              "method=\"POST\",le=\"0.05\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("pbserve:authentication_failures_total{model_name=\"demo\","
                              "transport=\"http\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("requests_rejected_total{")));
}

TEST(ServerMetrics, WhatAClientMakesUpIsNoLabel) {
  ServerMetrics metrics("demo", "pbserve");
  metrics.observe(http_record("BREW", "", 404));
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("handler=\"none\",method=\"other\",status=\"4xx\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("BREW")));
}

TEST(ServerMetrics, AHeadThatDoesNotParseIsHttp) {
  ServerMetrics metrics("demo", "pbserve");
  RequestRecord record = http_record("x", "", 400);
  record.method.clear();
  metrics.observe(record);
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("handler=\"none\",method=\"other\",status=\"4xx\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("grpc_server_handled_total{")));
}

TEST(ServerMetrics, GeneratingRequestsThatWereRefusedByReason) {
  ServerMetrics metrics("demo", "pbserve");
  RequestRecord record = http_record("POST", "/v1/completions", 429);
  record.error_reason = "queue_full";
  metrics.observe(record);
  EXPECT_THAT(metrics.render({}), HasSubstr("pbserve:requests_rejected_total{model_name=\"demo\","
                                            "reason=\"queue_full\"} 1\n"));
}

TEST(ServerMetrics, GrpcCallsByCode) {
  ServerMetrics metrics("demo", "pbserve");
  RequestRecord record = http_record("", "pbserve.v1.Inference/Generate", 429);
  record.code = absl::StatusCode::kResourceExhausted;
  metrics.observe(record);
  metrics.observe(http_record("", "", 501));
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("grpc_server_handled_total{grpc_code=\"ResourceExhausted\","
                              "grpc_method=\"Generate\",grpc_service=\"pbserve.v1.Inference\"} 1"));
  EXPECT_THAT(text, HasSubstr("grpc_method=\"none\",grpc_service=\"none\"} 1"));
}

TEST(ServerMetrics, ARequestThatTheEngineTookIsNotRejected) {
  ServerMetrics metrics("demo", "pbserve");
  RequestRecord record = http_record("POST", "/v1/completions", 500);
  record.completion.emplace();
  metrics.observe(record);
  EXPECT_THAT(metrics.render({}), Not(HasSubstr("requests_rejected_total{")));
}

TEST(ServerMetrics, LevelsAreThoseOfTheScrape) {
  ServerMetrics metrics("demo", "vllm");
  metrics.render({.http_connections = 7, .grpc_connections_refused = 2, .spans_dropped = 3});
  const std::string text =
      metrics.render({.http_connections = 5, .grpc_connections_refused = 4, .spans_dropped = 3});
  EXPECT_THAT(text, HasSubstr("vllm:connections{model_name=\"demo\",transport=\"http\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("vllm:connections_refused_total{model_name=\"demo\","
                              "transport=\"grpc\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("vllm:spans_dropped_total{model_name=\"demo\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:build_info{model_name=\"demo\",commit="));
}

}  // namespace
}  // namespace pbserve::server
