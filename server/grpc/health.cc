#include "server/grpc/health.h"

#include <utility>

#include "server/grpc/message.h"

namespace pbserve::server {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr char kService[] = "pbserve.v1.Inference";

grpc::ByteBuffer response(HealthCheckResponse::ServingStatus status) {
  HealthCheckResponse message;
  message.set_status(status);
  return to_bytes(message);
}

}  // namespace

bool GrpcHealth::knows(const std::string& service) {
  return service.empty() || service == kService;
}

HealthCheckResponse::ServingStatus GrpcHealth::status(bool is_known) const {
  if (!is_known) return HealthCheckResponse::SERVICE_UNKNOWN;
  const std::lock_guard lock(mutex_);
  return is_serving_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

void GrpcHealth::set_serving(bool is_serving) {
  std::vector<std::weak_ptr<HealthWatch>> watches;
  {
    const std::lock_guard lock(mutex_);
    is_serving_ = is_serving;
    watches = watches_;
  }
  for (const auto& weak : watches) {
    if (const auto watch = weak.lock()) watch->pump();
  }
}

void GrpcHealth::add(const std::shared_ptr<HealthWatch>& watch) {
  const std::lock_guard lock(mutex_);
  std::erase_if(watches_, [](const auto& weak) { return weak.expired(); });
  watches_.push_back(watch);
}

HealthWatch::HealthWatch(GrpcHealth* health, GrpcContext* context,
                         grpc::GenericCallbackServerContext* call, GrpcCallOptions options)
    : StreamingCall(context, call, std::move(options)), health_(health) {}

void HealthWatch::serve(grpc::ByteBuffer* bytes) {
  MessageMemory memory(nullptr);
  const auto message = memory.parse<HealthCheckRequest>(bytes);
  if (!message.ok()) return finish(message.status());
  bool is_cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    is_serving_ = false;
    is_cancelled = is_cancelled_;
    is_known_ = GrpcHealth::knows((*message)->service());
  }
  if (is_cancelled) return finish(absl::CancelledError("the client left"));
  health_->add(std::static_pointer_cast<HealthWatch>(shared_from_this()));
  pump();
}

void HealthWatch::write_next() {
  {
    const std::lock_guard lock(mutex_);
    if (is_reading_ || is_serving_ || is_writing_ || is_finished_) return;
    const HealthCheckResponse::ServingStatus status = health_->status(is_known_);
    if (status == written_) return;
    written_ = status;
    is_writing_ = true;
    update_ = response(status);
  }
  StartWrite(&update_);
}

absl::StatusOr<grpc::ByteBuffer> check_health(const GrpcHealth& health, grpc::ByteBuffer* bytes) {
  MessageMemory memory(nullptr);
  ASSIGN_OR_RETURN(const HealthCheckRequest* message, memory.parse<HealthCheckRequest>(bytes));
  if (!GrpcHealth::knows(message->service())) {
    return absl::NotFoundError("service: not one that is served here");
  }
  return response(health.status(true));
}

}  // namespace pbserve::server
