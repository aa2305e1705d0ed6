// grpc.health.v1: Check, and Watch until the client leaves.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proto/health.pb.h"
#include "server/grpc/streaming_call.h"

namespace pbserve::server {

class HealthWatch;

// What the server says about itself. Thread-safe; outlives the calls.
class GrpcHealth {
 public:
  using Status = grpc::health::v1::HealthCheckResponse;

  // False for a name that is not served: SERVICE_UNKNOWN is its status.
  static bool knows(const std::string& service);
  Status::ServingStatus status(bool is_known) const;

  // Tells the watches.
  void set_serving(bool is_serving);

  void add(const std::shared_ptr<HealthWatch>& watch);

 private:
  mutable std::mutex mutex_;
  bool is_serving_ = true;
  std::vector<std::weak_ptr<HealthWatch>> watches_;
};

// Its messages are changes of the status.
class HealthWatch : public StreamingCall {
 public:
  HealthWatch(GrpcHealth* health, GrpcContext* context, grpc::GenericCallbackServerContext* call,
              GrpcCallOptions options);

 private:
  void serve(grpc::ByteBuffer* bytes) override;
  void write_next() override;

  GrpcHealth* const health_;

  // The mutex guards these too.
  bool is_known_ = false;  // the name could be as long as a message
  int written_ = -1;       // the last status

  grpc::ByteBuffer update_;  // the one being written
};

// The answer to Check.
absl::StatusOr<grpc::ByteBuffer> check_health(const GrpcHealth& health, grpc::ByteBuffer* bytes);

}  // namespace pbserve::server
