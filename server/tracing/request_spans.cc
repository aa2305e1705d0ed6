#include "server/tracing/request_spans.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pbserve::server {
namespace {

using Clock = RequestRecord::Clock;
using Moment = std::optional<Clock::time_point>;

// The wall clock may be set while a request runs; its spans keep their lengths.
WallTime wall_time(const RequestRecord& record, Clock::time_point time) {
  return record.arrived_at + std::chrono::duration_cast<WallTime::duration>(time - record.arrived);
}

double seconds(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// Few names: no path or word of the client's.
std::string name_of(const RequestRecord& record) {
  if (record.completion) return "llm_request";
  if (record.transport == Transport::kGrpc) return record.handler;
  return absl::StrCat(known_method(record), " ", record.handler);
}

std::vector<SpanAttribute> transport_attributes(const RequestRecord& record) {
  std::vector<SpanAttribute> attributes{{"client.address", record.caller.address},
                                        {"gen_ai.request.id", record.id}};
  if (record.transport == Transport::kGrpc) {
    attributes.emplace_back("rpc.system", std::string("grpc"));
    attributes.emplace_back("rpc.method", record.handler);
  } else {
    attributes.emplace_back("http.request.method", known_method(record));
    attributes.emplace_back("http.route", record.handler);
    attributes.emplace_back("http.response.status_code", int64_t{record.status});
  }
  if (!record.caller.key_name.empty()) {
    attributes.emplace_back("enduser.id", record.caller.key_name);
  }
  return attributes;
}

void add_generation_attributes(const RequestRecord& record, std::vector<SpanAttribute>* to) {
  const engine::Completion& completion = *record.completion;
  to->emplace_back("gen_ai.usage.prompt_tokens", completion.usage.prompt_tokens);
  to->emplace_back("gen_ai.usage.completion_tokens", completion.usage.completion_tokens);
  to->emplace_back("gen_ai.latency.e2e", seconds(record.arrived, record.ended));
  if (record.submitted && record.prefill_began) {
    to->emplace_back("gen_ai.latency.time_in_queue",
                     seconds(*record.submitted, *record.prefill_began));
  }
  if (record.first_token) {
    to->emplace_back("gen_ai.latency.time_to_first_token",
                     seconds(record.arrived, *record.first_token));
  }
  to->emplace_back("pbserve.cached_tokens", completion.usage.cached_tokens);
  to->emplace_back("pbserve.prefill_density", completion.sparse.density);
}

}  // namespace

std::vector<Span> spans_of(const RequestRecord& record) {
  Span request{.trace_id = record.trace->trace_id,
               .id = make_span_id(),
               .parent_id = record.trace->parent_span_id,
               .name = name_of(record),
               .kind = SpanKind::kServer,
               .start = wall_time(record, record.arrived),
               .end = wall_time(record, record.ended),
               .attributes = transport_attributes(record),
               .is_error = record.status >= 500 || (record.completion && !record.error.empty()),
               .error = record.error};
  if (record.completion) add_generation_attributes(record, &request.attributes);
  std::vector<Span> spans{request};
  const auto add_phase = [&](const char* name, const Moment& begin, const Moment& end) {
    if (!begin) return;
    spans.push_back({.trace_id = request.trace_id,
                     .id = make_span_id(),
                     .parent_id = request.id,
                     .name = name,
                     .kind = SpanKind::kInternal,
                     .start = wall_time(record, *begin),
                     .end = wall_time(record, end.value_or(record.ended)),
                     .attributes = {},
                     .is_error = false,
                     .error = {}});
  };
  if (record.submitted) add_phase("prepare", record.arrived, record.submitted);
  add_phase("queue", record.submitted, record.prefill_began);
  add_phase("prefill", record.prefill_began, record.first_token);
  add_phase("decode", record.first_token, record.ended);
  return spans;
}

}  // namespace pbserve::server
