#include "server/request_reports.h"

#include <utility>

#include "server/tracing/request_spans.h"

namespace pbserve::server {

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
  const bool has_spans = exporter_ && record.trace && record.trace->is_sampled && !record.is_probe;
  if (has_spans) exporter_->add(spans_of(record));
}

}  // namespace pbserve::server
