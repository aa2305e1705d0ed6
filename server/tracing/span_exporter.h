// Sends spans to an OpenTelemetry collector: OTLP over HTTP, as JSON, in batches, from a thread of
// its own. A collector that is slow or away costs spans, which are counted, and nothing else.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/status.h"
#include "server/tracing/span.h"

namespace pbserve::server {

struct SpanExporterOptions {
  std::string endpoint;  // whole URL: http://collector:4318/v1/traces; no password
  std::vector<SpanAttribute> resource;
  // The names and defaults of OpenTelemetry's batch span processor.
  size_t max_queue_size = 2048;
  size_t max_export_batch_size = 512;
  std::chrono::milliseconds schedule_delay{5000};
  std::chrono::milliseconds export_timeout{10000};
};

class SpanExporter {
 public:
  // kInvalidArgument: the endpoint is no http or https URL, or holds a password, which is not
  // repeated.
  static absl::StatusOr<std::unique_ptr<SpanExporter>> start(SpanExporterOptions options);
  // Sends what is left, once, within two seconds.
  ~SpanExporter();
  SpanExporter(const SpanExporter&) = delete;
  SpanExporter& operator=(const SpanExporter&) = delete;

  // Thread-safe, never blocks for the network. Of more than fit the newest are dropped.
  void add(std::vector<Span> spans);

  int64_t num_exported() const { return num_exported_; }
  int64_t num_dropped() const { return num_dropped_; }  // no room, or the collector took them not

 private:
  class Client;

  SpanExporter(SpanExporterOptions options, std::unique_ptr<Client> client);
  void run();
  // Takes up to a batch; empty once it is over and nothing is left.
  std::vector<Span> take_batch();
  void send(const std::vector<Span>& batch);

  const SpanExporterOptions options_;
  const std::unique_ptr<Client> client_;  // of the thread alone
  std::atomic<int64_t> num_exported_{0};
  std::atomic<int64_t> num_dropped_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Span> queue_;
  bool is_over_ = false;
  std::chrono::steady_clock::time_point
      next_line_{};  // the next failure that is logged; the thread's
  std::thread thread_;
};

}  // namespace pbserve::server
