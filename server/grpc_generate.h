// One Generate call: a write reactor that pulls from the request's channel, one write at a time.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "proto/inference.pb.h"
#include "server/app.h"
#include "server/generation.h"
#include "server/open_count.h"

namespace pbserve::server {

// Lives until the call is over, held by itself; gRPC calls its On... methods from any thread.
class GenerateReactor : public grpc::ServerWriteReactor<v1::GenerateEvent>,
                        public std::enable_shared_from_this<GenerateReactor> {
 public:
  // `message` and `context` live as long as the call. `count` is told of the call.
  static GenerateReactor* start(App* app, grpc::CallbackServerContext* context,
                                const v1::GenerateRequest* message, OpenCount* count);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit GenerateReactor(OpenCount* count) : call_(count) {}

  // On a worker: message -> Request -> tokens -> queue.
  void submit(App* app, const v1::GenerateRequest& message,
              std::optional<engine::Clock::time_point> deadline);
  absl::StatusOr<std::unique_ptr<Generation>> start_generation(
      App* app, const v1::GenerateRequest& message,
      std::optional<engine::Clock::time_point> deadline);
  // Writes the next event if one is there and no write is under way.
  void pump();
  void finish(const absl::Status& status);

  OpenCount::Scope call_;
  std::shared_ptr<GenerateReactor> self_;  // until OnDone

  // gRPC may run On... methods inside Start... and Finish, so those are called unlocked; the
  // flags say who may call them.
  std::mutex mutex_;
  bool is_writing_ = false;
  bool is_submitting_ = false;  // a worker reads the message
  bool is_finished_ = false;    // Finish was called, or will be by who set this
  bool is_cancelled_ = false;
  std::unique_ptr<Generation> generation_;
  std::string request_id_;
  v1::GenerateEvent event_;  // the one being written
};

// The call's deadline, if it has one.
std::optional<engine::Clock::time_point> deadline_of(const grpc::CallbackServerContext& context);

}  // namespace pbserve::server
