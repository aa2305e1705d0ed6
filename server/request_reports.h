// All that is told of a request when it has ended: its log line, metrics, spans. Thread-safe.
#pragma once

#include <memory>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/metrics/server_metrics.h"
#include "server/request_log.h"
#include "server/request_record.h"
#include "server/tracing/span_exporter.h"

namespace pbserve::server {

class RequestReports {
 public:
  // `exporter` may be null.
  RequestReports(const RequestLogOptions& log, std::shared_ptr<ServerMetrics> metrics,
                 std::shared_ptr<SpanExporter> exporter);

  // The trace of a request that came with this header, empty where there was none: the caller's, or
  // a new one if spans are exported.
  std::optional<TraceContext> trace_of(absl::string_view traceparent) const;

  void tell(const RequestRecord& record);

 private:
  RequestLog log_;
  const std::shared_ptr<ServerMetrics> metrics_;
  const std::shared_ptr<SpanExporter> exporter_;
};

}  // namespace pbserve::server
