// One gRPC call from its metadata on: its message is read only after key and load have been
// checked, within a time and out of the server's memory budget, and then goes to a worker.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "kernels/core/status.h"
#include "server/app.h"
#include "server/byte_budget.h"
#include "server/grpc/connections.h"
#include "server/grpc/heap_trim.h"
#include "server/open_count.h"
#include "server/open_request.h"

namespace pbserve::server {

// What the calls of one server share.
struct GrpcContext {
  App* app;
  OpenCount calls;    // of pbserve.v1.Inference: a shutdown waits for them
  OpenCount checks;   // of health, each a moment
  OpenCount watches;  // of health, and reflection: they end when the client likes
  HeapTrim heap;
  std::shared_ptr<GrpcConnections> connections;  // the app's too: it is counted there
};

struct GrpcCallOptions {
  std::shared_ptr<OpenRequest> request;
  OpenCount* count;
  bool needs_key;
  bool is_cheap;  // answers while what waits for the workers is refused
  std::chrono::seconds receive_timeout;
};

// Held by itself from start() until gRPC is done with it; On... methods come from any thread, also
// from inside Start... and Finish, so those are called unlocked.
class GrpcCall : public grpc::ServerGenericBidiReactor,
                 public std::enable_shared_from_this<GrpcCall> {
 public:
  // Reads the first message.
  void start();

  void OnReadDone(bool ok) final;
  void OnDone() final;

 protected:
  GrpcCall(GrpcContext* context, grpc::GenericCallbackServerContext* call, GrpcCallOptions options);

  // On a worker, with a message that may be consumed. Must end the call or see to it that
  // something does; what it throws ends it. Until it returns nobody else ends the call.
  virtual void serve(grpc::ByteBuffer* message) = 0;
  // The client has closed its side in place of a message.
  virtual absl::Status end_of_messages() const;
  // The same, for what has an answer then.
  virtual void end_messages() { finish(end_of_messages()); }

  // Each ends the call unless it has ended. A reply is its last message.
  void finish(const absl::Status& status);
  void reply(grpc::ByteBuffer message);

  void read();

  // False: the call has ended already, by somebody else. Who gets true is to end it, and nobody
  // uses gRPC's half of it any more.
  bool take_end();
  bool take_end_locked() { return !std::exchange(is_finished_, true); }
  void end(const absl::Status& status);

  // What `work` throws ends the call.
  void guard(absl::FunctionRef<void()> work);

  GrpcContext* const context_;
  grpc::GenericCallbackServerContext* const call_;  // lives until OnDone
  const std::shared_ptr<OpenRequest> request_;

  std::mutex mutex_;  // guards what follows; the flags say who may call Start... and Finish
  bool is_reading_ = false;
  bool is_serving_ = false;   // a worker has the message, or will have it
  bool is_finished_ = false;  // Finish was called, or will be by who set this
  bool was_large_ = false;    // a message may have taken much memory

 private:
  void run();
  void take_message(bool ok);
  absl::Status charge_message();
  void stop_reading(const absl::Status& status);

  const GrpcCallOptions options_;
  const std::string peer_;
  const OpenCount::Scope open_;
  std::shared_ptr<GrpcCall> self_;
  std::optional<grpc::Alarm> timeout_;
  int64_t reading_id_ = 0;  // of GrpcConnections
  grpc::ByteBuffer message_;
  ByteBudget::Lease lease_;  // what message_ holds of the budget
  grpc::ByteBuffer reply_;
  ByteBudget::Lease reply_lease_;
};

}  // namespace pbserve::server
