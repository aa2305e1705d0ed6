// One Generate call: pulls from the request's channel, one write at a time.
#pragma once

#include <memory>
#include <optional>

#include "proto/inference.pb.h"
#include "server/generation.h"
#include "server/grpc/streaming_call.h"

namespace pbserve::server {

class GenerateCall : public StreamingCall {
 public:
  GenerateCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
               GrpcCallOptions options);

 private:
  // message -> Request -> tokens -> queue.
  void serve(grpc::ByteBuffer* bytes) override;
  absl::StatusOr<std::unique_ptr<Generation>> start_generation(grpc::ByteBuffer* bytes);
  std::shared_ptr<GenerateCall> shared();
  void write_next() override;
  void let_go() override;

  const std::optional<engine::Clock::time_point> deadline_;

  std::unique_ptr<Generation> generation_;  // the mutex guards it

  grpc::ByteBuffer event_;  // the one being written
};

// The call's deadline, if it has one.
std::optional<engine::Clock::time_point> deadline_of(const grpc::CallbackServerContext& context);

}  // namespace pbserve::server
