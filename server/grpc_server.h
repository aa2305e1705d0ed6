// The gRPC front: pbserve.v1.Inference through the callback API, the standard health service with
// Watch, and reflection.
#pragma once

#include <memory>

#include "kernels/core/status.h"
#include "server/app.h"

namespace pbserve::server {

class GrpcServer {
 public:
  // Listens and serves. `app` outlives the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> start(App* app);
  ~GrpcServer();  // stop(0) if that has not been called
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  int port() const;

  // Health answers NOT_SERVING from here on; calls are still taken.
  void set_not_serving();

  // Lets open calls of ours end for up to `timeout_s`, then cancels everything that is open.
  void stop(double timeout_s);

 private:
  struct Impl;
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
