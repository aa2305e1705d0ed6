// One span of a trace, and its form on the wire: OTLP over HTTP as JSON
// (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/tracing/trace_context.h"

namespace pbserve::server {

using WallTime = std::chrono::system_clock::time_point;
using SpanAttribute = std::pair<std::string, std::variant<std::string, int64_t, double, bool>>;

enum class SpanKind : uint8_t { kInternal = 1, kServer = 2 };  // as OTLP numbers them

struct Span {
  TraceId trace_id{};
  SpanId id{};
  SpanId parent_id{};  // zero: none
  std::string name;
  SpanKind kind = SpanKind::kInternal;
  WallTime start;
  WallTime end;
  std::vector<SpanAttribute> attributes;
  bool is_error = false;
  std::string error;  // of an error: what happened
};

// An ExportTraceServiceRequest. `resource` says who made the spans: service.name and the like.
std::string to_otlp_json(std::span<const Span> spans, std::span<const SpanAttribute> resource);

}  // namespace pbserve::server
