// The gRPC front: binds early, so that a port in use is an error before a model is loaded, and
// serves once there is an engine.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/status.h"
#include "server/app.h"
#include "server/config/config.h"

namespace pbserve::server {

class GrpcServer {
 public:
  // Takes the address, without listening.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> bind(const ServerConfig& config);
  ~GrpcServer();  // stop(0) if that has not been called
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  uint16_t port() const;

  // Starts the threads; health follows app->readiness. `app` outlives the server.
  absl::Status serve(App* app);

  // Takes no more connections, lets open calls of ours end for up to `timeout_s`, then cancels
  // everything that is open.
  void stop(double timeout_s);

 private:
  struct Impl;
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
