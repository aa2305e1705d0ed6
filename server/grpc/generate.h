// One Generate call: pulls from the request's channel, one write at a time.
#pragma once

#include <memory>
#include <optional>

#include "proto/inference.pb.h"
#include "server/generation.h"
#include "server/grpc/call.h"

namespace pbserve::server {

class GenerateCall : public GrpcCall {
 public:
  GenerateCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
               GrpcCallOptions options);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;

 private:
  // message -> Request -> tokens -> queue.
  void serve(grpc::ByteBuffer* bytes) override;
  absl::StatusOr<std::unique_ptr<Generation>> start_generation(grpc::ByteBuffer* bytes);
  std::shared_ptr<GenerateCall> shared();
  // Writes the next event if one is there and no write is under way.
  void pump();
  void write_next();

  const std::optional<engine::Clock::time_point> deadline_;

  // The mutex guards these too.
  bool is_writing_ = false;
  bool is_cancelled_ = false;
  std::unique_ptr<Generation> generation_;

  grpc::ByteBuffer event_;  // the one being written
};

// The call's deadline, if it has one.
std::optional<engine::Clock::time_point> deadline_of(const grpc::CallbackServerContext& context);

}  // namespace pbserve::server
