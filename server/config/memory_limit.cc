#include "server/config/memory_limit.h"

#include "absl/strings/str_cat.h"

namespace pbserve::server {
namespace {

// gRPC's first window of a stream, which a client may fill before its call is looked at.
constexpr int64_t kGrpcConnectionBytes = 64 << 10;

// Asio's buffers and OpenSSL's state of a connection that says nothing: measured, 75 KB.
constexpr int64_t kTlsConnectionBytes = 80 << 10;

int64_t connection_bytes(const ServerConfig& config) {
  const int64_t tls = config.server.ssl_certfile.empty() ? 0 : kTlsConnectionBytes;
  const int64_t http = config.http.max_connections * (config.http.max_header_bytes + tls);
  return http + (config.grpc.enabled ? config.grpc.max_connections * kGrpcConnectionBytes : 0);
}

}  // namespace

absl::Status check_buffers_fit(const engine::MemoryLimit& limit, const ServerConfig& config) {
  const int64_t buffered = config.server.max_buffered_bytes;
  const int64_t connections = connection_bytes(config);
  const int64_t contexts = config.contexts.max_bytes;
  if (buffered <= limit.bytes - connections - contexts) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "server.max_buffered_bytes = ", buffered, ", contexts.max_bytes = ", contexts, " and ",
      connections, " bytes for http.max_connections = ", config.http.max_connections,
      " and grpc.max_connections = ", config.grpc.enabled ? config.grpc.max_connections : 0,
      " do not fit into ", limit.name, " = ", limit.bytes, ": lower them"));
}

}  // namespace pbserve::server
