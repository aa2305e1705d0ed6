#include "server/tracing/span.h"

#include <nlohmann/json.hpp>

#include "server/json/body.h"

namespace pbserve::server {
namespace {

constexpr int kErrorStatus = 2;  // STATUS_CODE_ERROR

// 64-bit numbers are strings: JSON's own lose digits in some readers.
std::string nanoseconds(WallTime time) {
  using std::chrono::duration_cast;
  return std::to_string(duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count());
}

Json value_json(const std::string& value) { return {{"stringValue", value}}; }
Json value_json(int64_t value) { return {{"intValue", std::to_string(value)}}; }
Json value_json(double value) { return {{"doubleValue", value}}; }
Json value_json(bool value) { return {{"boolValue", value}}; }

Json attributes_json(std::span<const SpanAttribute> attributes) {
  Json list = Json::array();
  for (const auto& [key, value] : attributes) {
    Json json = std::visit([](const auto& typed) { return value_json(typed); }, value);
    list.push_back({{"key", key}, {"value", std::move(json)}});
  }
  return list;
}

Json span_json(const Span& span) {
  Json json = {{"traceId", to_hex(span.trace_id)},
               {"spanId", to_hex(span.id)},
               {"name", span.name},
               {"kind", static_cast<int>(span.kind)},
               {"startTimeUnixNano", nanoseconds(span.start)},
               {"endTimeUnixNano", nanoseconds(span.end)},
               {"attributes", attributes_json(span.attributes)}};
  if (span.parent_id != SpanId{}) json["parentSpanId"] = to_hex(span.parent_id);
  if (span.is_error) json["status"] = {{"code", kErrorStatus}, {"message", span.error}};
  return json;
}

}  // namespace

std::string to_otlp_json(std::span<const Span> spans, std::span<const SpanAttribute> resource) {
  Json list = Json::array();
  for (const Span& span : spans) list.push_back(span_json(span));
  const Json scope = {{"scope", {{"name", "pbserve"}}}, {"spans", std::move(list)}};
  const Json group = {{"resource", {{"attributes", attributes_json(resource)}}},
                      {"scopeSpans", Json::array({scope})}};
  return dump_json({{"resourceSpans", Json::array({group})}});
}

}  // namespace pbserve::server
