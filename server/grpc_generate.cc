#include "server/grpc_generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "server/api_error.h"
#include "server/grpc_convert.h"
#include "server/grpc_status.h"
#include "server/request_id.h"

namespace pbserve::server {
namespace {

constexpr char kRoute[] = "pbserve.v1.Inference/Generate";

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

GenerateReactor* GenerateReactor::start(App* app, grpc::CallbackServerContext* context,
                                        const v1::GenerateRequest* message, OpenCount* count) {
  const std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(count));
  reactor->self_ = reactor;
  reactor->request_id_ = message->request_id().empty() ? make_request_id() : message->request_id();
  app->workers.post(message->ByteSizeLong(),
                    [reactor, app, message, deadline = deadline_of(*context)] {
                      reactor->submit(app, *message, deadline);
                    });
  return reactor.get();
}

absl::StatusOr<std::unique_ptr<Generation>> GenerateReactor::start_generation(
    App* app, const v1::GenerateRequest& message,
    std::optional<engine::Clock::time_point> deadline) {
  if (!message.model().empty() && message.model() != app->engine->info().model_name) {
    return model_not_found(message.model().substr(0, 200));
  }
  ASSIGN_OR_RETURN(engine::Request request,
                   from_proto(message, app->config.http.json, request_id_));
  request.deadline = deadline;
  const auto on_ready = [weak = weak_from_this()] {
    if (const auto reactor = weak.lock()) reactor->pump();
  };
  return Generation::start(app->engine, std::move(request),
                           {.route = kRoute,
                            .buffer_bytes = app->config.server.response_buffer_bytes,
                            .wants_progress = wants_progress(message),
                            .on_ready = on_ready});
}

void GenerateReactor::submit(App* app, const v1::GenerateRequest& message,
                             std::optional<engine::Clock::time_point> deadline) {
  {
    // After a cancelled call's Finish the message is gone.
    const std::lock_guard lock(mutex_);
    if (is_finished_) return;
    is_submitting_ = true;
  }
  absl::StatusOr<std::unique_ptr<Generation>> generation = start_generation(app, message, deadline);
  bool is_cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    is_submitting_ = false;
    is_cancelled = is_cancelled_;
    if (generation.ok() && !is_cancelled) generation_ = *std::move(generation);
  }
  if (is_cancelled) return finish(absl::CancelledError("the call was cancelled"));
  if (!generation.ok()) {
    log_refused(kRoute, request_id_, generation.status());
    return finish(generation.status());
  }
  pump();
}

void GenerateReactor::pump() {
  absl::Status error;
  {
    const std::lock_guard lock(mutex_);
    if (is_writing_ || is_finished_ || !generation_) return;
    const std::optional<ResponseEvent> event = generation_->next();
    if (!event) return;
    const auto* completion = std::get_if<engine::Completion>(&*event);
    if (completion != nullptr) error = completion_error(*completion);
    if (error.ok()) {
      event_ = to_proto(*event, request_id_);
      is_writing_ = true;
      is_finished_ = completion != nullptr;
    }
  }
  if (!error.ok()) return finish(error);
  // Only this thread may write: is_writing_ is ours. event_ stays until OnWriteDone.
  if (event_.has_finished()) {
    StartWriteAndFinish(&event_, grpc::WriteOptions(), grpc::Status::OK);
  } else {
    StartWrite(&event_);
  }
}

void GenerateReactor::finish(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (is_finished_) return;
    is_finished_ = true;
  }
  Finish(to_grpc(status));
}

void GenerateReactor::OnWriteDone(bool ok) {
  bool is_over = false;
  {
    const std::lock_guard lock(mutex_);
    is_writing_ = false;
    is_over = !ok || is_cancelled_;
  }
  if (is_over) return finish(absl::CancelledError("the client left"));
  pump();
}

void GenerateReactor::OnCancel() {
  std::unique_ptr<Generation> dropped;  // cancels in the engine, outside the lock
  {
    const std::lock_guard lock(mutex_);
    is_cancelled_ = true;
    dropped = std::move(generation_);
    // Whoever writes or submits ends the call when that is done.
    if (is_writing_ || is_submitting_) return;
  }
  finish(absl::CancelledError("the client left"));
}

void GenerateReactor::OnDone() { self_.reset(); }

}  // namespace pbserve::server
