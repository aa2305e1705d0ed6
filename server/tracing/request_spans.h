// The spans of one request: its own, and what it spent its time on.
#pragma once

#include <vector>

#include "server/request_record.h"
#include "server/tracing/span.h"

namespace pbserve::server {

// A span of kind SERVER under the caller's, `llm_request` for a generation, with the attributes
// that vLLM gives it (vllm/tracing, SpanAttributes); below it `prepare` (body, template, tokens),
// `queue`, `prefill` and `decode`, as far as they were reached.
// REQUIRES: record.trace and record.handler are set.
std::vector<Span> spans_of(const RequestRecord& record);

}  // namespace pbserve::server
