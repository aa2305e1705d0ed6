#include "server/request_reports.h"

#include <utility>

#include "server/tracing/request_spans.h"

namespace pbserve::server {
namespace {

// Whoever has no key, or asks for what does not exist, fills no collector.
bool has_spans(const RequestRecord& record) {
  const bool is_known =
      !record.handler.empty() && record.code != absl::StatusCode::kUnauthenticated;
  return is_known && !record.is_probe && record.trace && record.trace->is_sampled;
}

}  // namespace

RequestReports::RequestReports(const RequestLogOptions& log, std::shared_ptr<ServerMetrics> metrics,
                               std::shared_ptr<SpanExporter> exporter)
    : log_(log), metrics_(std::move(metrics)), exporter_(std::move(exporter)) {}

std::optional<TraceContext> RequestReports::trace_of(absl::string_view traceparent) const {
  if (const auto given = parse_traceparent(traceparent)) return given;
  return exporter_ ? std::optional(new_trace()) : std::nullopt;
}

void RequestReports::tell(const RequestRecord& record) {
  log_.write(record);
  metrics_->observe(record);
  if (exporter_ && has_spans(record)) exporter_->add(spans_of(record));
}

}  // namespace pbserve::server
