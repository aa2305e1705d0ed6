// grpc.reflection.v1alpha: what grpcurl and the like ask to learn the methods and messages.
#pragma once

#include "server/grpc/call.h"

namespace pbserve::server {

// Message by message, until the client closes its side.
class ReflectionCall : public GrpcCall {
 public:
  ReflectionCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
                 GrpcCallOptions options);

  void OnWriteDone(bool ok) override;

 private:
  void serve(grpc::ByteBuffer* bytes) override;
  absl::Status end_of_messages() const override { return absl::OkStatus(); }

  grpc::ByteBuffer response_;  // the one being written
};

}  // namespace pbserve::server
