// Takes connections for gRPC and hands them over. gRPC's own listener stops for good at the first
// "too many open files", and knows no bound on connections.
#pragma once

#include <grpcpp/server_builder.h>

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/core/status.h"
#include "server/grpc/connections.h"

namespace pbserve::server {

using GrpcConnectionTaker = grpc::experimental::ExternalConnectionAcceptor;

class GrpcAcceptor {
 public:
  // Takes the address, without listening. `host` is an IP address; port 0 is any free one.
  static absl::StatusOr<std::unique_ptr<GrpcAcceptor>> bind(const std::string& host, int32_t port);
  ~GrpcAcceptor();  // stop()
  GrpcAcceptor(const GrpcAcceptor&) = delete;
  GrpcAcceptor& operator=(const GrpcAcceptor&) = delete;

  uint16_t port() const;

  // Listens, and starts the thread that hands every connection to `taker`, whose server runs, and
  // adds it to `connections`. One for which these have no room is closed at once.
  absl::Status start(std::unique_ptr<GrpcConnectionTaker> taker, GrpcConnections* connections);

  // Closes the port; connections that gRPC has are its own.
  void stop();

 private:
  struct Impl;
  explicit GrpcAcceptor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
