// What the server counts around the engine: answers by status, refusals, keys that were wrong,
// connections. Names that instrumentation libraries have made common stand without a prefix
// (http_requests_total, grpc_server_handled_total); ours have the prefix of the engine's.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"

namespace pbserve::server {

enum class Transport : uint8_t { kHttp, kGrpc };

class ServerMetrics {
 public:
  // `prefix` stands before the colon of names of our own.
  explicit ServerMetrics(const std::string& prefix);
  ~ServerMetrics();
  ServerMetrics(const ServerMetrics&) = delete;
  ServerMetrics& operator=(const ServerMetrics&) = delete;

  // One answer. `handler` is a route as the table of routes has it, "none" where nothing matched:
  // what a client makes up must not become a label.
  void observe_http(absl::string_view method, absl::string_view handler, int status,
                    double seconds);
  // One call that has ended. `path` is "service/method"; unknown methods are "none".
  void observe_grpc(absl::string_view path, const absl::Status& status, double seconds);
  // A request that never entered the engine, by the reason that its status gives.
  void count_rejected(const absl::Status& status);
  void count_authentication_failure(Transport transport);

  // What is counted elsewhere, and read when somebody scrapes.
  struct Levels {
    int64_t http_connections = 0;
    int64_t grpc_connections = 0;
    int64_t http_connections_refused = 0;
    int64_t grpc_connections_refused = 0;
    int64_t log_lines_dropped = 0;
    int64_t spans_exported = 0;
    int64_t spans_dropped = 0;
  };
  // Prometheus text format.
  std::string render(const Levels& levels) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
