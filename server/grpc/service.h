// Every method that the gRPC port answers: pbserve.v1.Inference, health and reflection. A call
// shows up with its metadata, so its key and the load are checked before any of its message is
// taken; gRPC's generated services, health and reflection included, would read the message first.
#pragma once

#include <grpcpp/generic/async_generic_service.h>

#include <chrono>

#include "server/app.h"
#include "server/grpc/call.h"
#include "server/grpc/health.h"

namespace pbserve::server {

class GrpcService : public grpc::CallbackGenericService {
 public:
  explicit GrpcService(App* app);
  ~GrpcService() override;

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* call) override;

  GrpcHealth& health() { return health_; }
  GrpcConnections& connections() { return *context_.connections; }

  // False: calls were open still after `timeout_s`.
  bool wait_for_calls(double timeout_s) {
    return context_.calls.wait_for_none(std::chrono::duration<double>(timeout_s));
  }

  // After gRPC's shutdown: a thread that has just looked at a call may still let go of it.
  void wait_for_last_calls() {
    for (OpenCount* count : {&context_.calls, &context_.checks, &context_.watches}) {
      count->wait_for_none(std::chrono::seconds(1));
    }
  }

 private:
  GrpcContext context_;
  GrpcHealth health_;
};

}  // namespace pbserve::server
