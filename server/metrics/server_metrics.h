// What the server counts around the engine: answers by status, refusals, keys that were wrong,
// connections. Names that instrumentation libraries have made common stand without a prefix
// (http_requests_total, grpc_server_handled_total); ours have the prefix of the engine's.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/request_record.h"

namespace pbserve::server {

class ServerMetrics {
 public:
  // `prefix` stands before the colon of names of our own, which have the model's name as a label.
  ServerMetrics(const std::string& model_name, const std::string& prefix);
  ~ServerMetrics();
  ServerMetrics(const ServerMetrics&) = delete;
  ServerMetrics& operator=(const ServerMetrics&) = delete;

  // A request that has ended. What a client makes up becomes no label: paths that nobody serves
  // are "none", methods that HTTP does not have "other".
  void observe(const RequestRecord& record);

  // What is counted elsewhere, and read when somebody scrapes.
  struct Levels {
    int64_t http_connections = 0;
    int64_t grpc_connections = 0;
    int64_t http_connections_refused = 0;
    int64_t grpc_connections_refused = 0;
    int64_t log_lines_dropped = 0;
    int64_t spans_exported = 0;
    int64_t spans_dropped = 0;
    int64_t kv_event_messages = 0;
    int64_t kv_event_messages_replayed = 0;
    int64_t kv_events_dropped = 0;
    int64_t contexts = 0;
    int64_t context_bytes = 0;
  };
  // Prometheus text format.
  std::string render(const Levels& levels) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
