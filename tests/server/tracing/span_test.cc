// OTLP's JSON: names as its protocol has them, ids in hex, 64-bit numbers as strings.
#include "server/tracing/span.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace pbserve::server {
namespace {

Span make_span() {
  Span span;
  span.trace_id.fill(0xab);
  span.id.fill(0x01);
  span.name = "llm_request";
  span.kind = SpanKind::kServer;
  span.start = WallTime(std::chrono::seconds(1'700'000'000));
  span.end = span.start + std::chrono::milliseconds(1);
  return span;
}

nlohmann::json encoded(const Span& span) {
  const auto request = nlohmann::json::parse(to_otlp_json({&span, 1}, {}));
  return request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
}

TEST(Otlp, NamesAndTimes) {
  const auto span = encoded(make_span());
  EXPECT_EQ(span["traceId"], "abababababababababababababababab");
  EXPECT_EQ(span["spanId"], "0101010101010101");
  EXPECT_EQ(span["kind"], 2);
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000000000000");
  EXPECT_EQ(span["endTimeUnixNano"], "1700000000001000000");
  EXPECT_FALSE(span.contains("parentSpanId"));
  EXPECT_FALSE(span.contains("status"));
}

TEST(Otlp, ParentAndError) {
  Span span = make_span();
  span.parent_id.fill(0x02);
  span.is_error = true;
  span.error = "the queue is full";
  EXPECT_EQ(encoded(span)["parentSpanId"], "0202020202020202");
  EXPECT_EQ(encoded(span)["status"]["code"], 2);
  EXPECT_EQ(encoded(span)["status"]["message"], "the queue is full");
}

TEST(Otlp, Attributes) {
  Span span = make_span();
  span.attributes = {
      {"text", std::string("a\xff")}, {"whole", int64_t{1} << 60}, {"real", 0.5}, {"flag", true}};
  const auto attributes = encoded(span)["attributes"];
  EXPECT_EQ(attributes[0]["value"]["stringValue"], "a\ufffd");  // JSON is UTF-8
  EXPECT_EQ(attributes[1]["value"]["intValue"], "1152921504606846976");
  EXPECT_EQ(attributes[2]["value"]["doubleValue"], 0.5);
  EXPECT_EQ(attributes[3]["value"]["boolValue"], true);
}

TEST(Otlp, Resource) {
  const std::vector<SpanAttribute> resource{{"service.name", std::string("pbserve")}};
  const auto request = nlohmann::json::parse(to_otlp_json({}, resource));
  const auto attributes = request["resourceSpans"][0]["resource"]["attributes"];
  EXPECT_EQ(attributes[0]["key"], "service.name");
  EXPECT_EQ(attributes[0]["value"]["stringValue"], "pbserve");
}

}  // namespace
}  // namespace pbserve::server
