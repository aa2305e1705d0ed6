// Where a request stands in a trace that spans several services: the header `traceparent` of W3C
// Trace Context (https://www.w3.org/TR/trace-context/), and fresh names where there is none.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace pbserve::server {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

struct TraceContext {
  TraceId trace_id{};
  SpanId parent_span_id{};  // zero: this server begins the trace
  bool is_sampled = true;   // whoever began the trace decides whether its spans are kept
};

// Nothing where the value is not well formed: the standard has the receiver begin a new trace.
// Versions to come are read as far as version 00 goes.
std::optional<TraceContext> parse_traceparent(absl::string_view value);

// One that begins here, and is sampled.
TraceContext new_trace();

SpanId make_span_id();

// In lower case, as headers and OTLP have them.
std::string to_hex(const TraceId& id);
std::string to_hex(const SpanId& id);

}  // namespace pbserve::server
