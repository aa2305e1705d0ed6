#include "server/grpc/generate.h"

#include <chrono>
#include <string>
#include <utility>

#include "server/api_error.h"
#include "server/grpc/convert.h"
#include "server/grpc/message.h"
#include "server/request_id.h"

namespace pbserve::server {
namespace {

bool wants_progress(const v1::GenerateRequest& message) {
  return !message.has_prefill_progress() || message.prefill_progress();
}

}  // namespace

std::optional<engine::Clock::time_point> deadline_of(const grpc::CallbackServerContext& context) {
  // Further off than this is "none": the sum below would overflow.
  constexpr auto kFarOff = std::chrono::hours(24 * 365);
  const auto left = context.deadline() - std::chrono::system_clock::now();
  if (left > kFarOff) return std::nullopt;
  return engine::Clock::now() + std::chrono::duration_cast<engine::Clock::duration>(left);
}

GenerateCall::GenerateCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
                           GrpcCallOptions options)
    : StreamingCall(context, call, std::move(options)), deadline_(deadline_of(*call)) {}

std::shared_ptr<GenerateCall> GenerateCall::shared() {
  return std::static_pointer_cast<GenerateCall>(shared_from_this());
}

absl::StatusOr<std::unique_ptr<Generation>> GenerateCall::start_generation(
    grpc::ByteBuffer* bytes) {
  RETURN_IF_ERROR(context_->app->engine->check_queue());  // it may have filled meanwhile
  MessageMemory memory(&context_->app->buffers);
  ASSIGN_OR_RETURN(const v1::GenerateRequest* parsed, memory.parse<v1::GenerateRequest>(bytes));
  const v1::GenerateRequest& message = *parsed;
  if (!message.request_id().empty()) {
    // Before it becomes the call's name, which goes into logs.
    RETURN_IF_ERROR(check_request_id(message.request_id()));
    request_->set_id(message.request_id());
  }
  App* app = context_->app;
  if (!message.model().empty() && message.model() != app->engine->info().model_name) {
    return model_not_found(message.model().substr(0, kRepeatedBytesMax));
  }
  ASSIGN_OR_RETURN(engine::Request request,
                   from_proto(message, app->config.http.json, request_->id()));
  if (!message.context().empty()) {
    RETURN_IF_ERROR(app->contexts.use(request_->record.caller, message.context(), &request));
  }
  request.deadline = deadline_;
  const auto on_ready = [weak = std::weak_ptr<GenerateCall>(shared())] {
    if (const auto call = weak.lock()) call->pump();
  };
  return Generation::start(app->engine, std::move(request),
                           {.open = request_,
                            .buffers = &app->buffers,
                            .buffer_bytes = app->config.server.response_buffer_bytes,
                            .wants_progress = wants_progress(message),
                            .on_ready = on_ready});
}

void GenerateCall::serve(grpc::ByteBuffer* bytes) {
  absl::StatusOr<std::unique_ptr<Generation>> generation = start_generation(bytes);
  bool is_cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    is_serving_ = false;
    is_cancelled = is_cancelled_;
    if (generation.ok() && !is_cancelled) generation_ = *std::move(generation);
  }
  if (is_cancelled) return finish(absl::CancelledError("the call was cancelled"));
  if (!generation.ok()) return finish(generation.status());
  pump();
}

void GenerateCall::write_next() {
  absl::Status error;
  bool is_last = false;
  {
    const std::lock_guard lock(mutex_);
    if (is_writing_ || is_finished_ || !generation_) return;
    const std::optional<ResponseEvent> event = generation_->next();
    if (!event) return;
    const auto* completion = std::get_if<engine::Completion>(&*event);
    is_last = completion != nullptr;
    if (is_last) error = completion_error(*completion);
    if (error.ok()) {
      event_ = to_bytes(to_proto(*event, request_->id()));
      is_writing_ = true;
      is_finished_ = is_last;
      request_->record.bytes_out += static_cast<int64_t>(event_.Length());
      if (is_last) {
        request_->succeed();
        request_->slot.give_back();
      }
    }
  }
  if (!error.ok()) return finish(error);
  // Only this thread may write: is_writing_ is ours. event_ stays until OnWriteDone.
  if (is_last) {
    StartWriteAndFinish(&event_, grpc::WriteOptions(), grpc::Status::OK);
  } else {
    StartWrite(&event_);
  }
}

void GenerateCall::let_go() {
  std::unique_ptr<Generation> dropped;  // cancels in the engine, outside the lock
  const std::lock_guard lock(mutex_);
  dropped = std::move(generation_);
}

}  // namespace pbserve::server
