#include "server/generation.h"

#include <utility>

namespace pbserve::server {

absl::StatusOr<std::unique_ptr<Generation>> Generation::start(engine::Engine* engine,
                                                              engine::Request request,
                                                              GenerationOptions options) {
  const auto on_end = [open = options.open](const engine::Completion& completion, bool) {
    open->complete(completion);
  };
  request.on_sized = [open = options.open](int64_t num_tokens) {
    return open->slot.charge(num_tokens);
  };
  options.open->record.submitted = RequestRecord::Clock::now();
  auto channel =
      std::make_shared<ResponseChannel>(ChannelOptions{.capacity_bytes = options.buffer_bytes,
                                                       .buffers = options.buffers,
                                                       .wants_progress = options.wants_progress,
                                                       .on_ready = std::move(options.on_ready),
                                                       .on_end = on_end});
  const absl::StatusOr<engine::Engine::Handle> handle =
      engine->submit(std::move(request), channel->make_sink());
  if (!handle.ok()) return handle.status();
  channel->set_cancel([engine, handle = *handle] { engine->cancel(handle); });
  return std::unique_ptr<Generation>(new Generation(std::move(channel)));
}

Generation::Generation(std::shared_ptr<ResponseChannel> channel) : channel_(std::move(channel)) {}

Generation::~Generation() { channel_->abandon(); }

absl::Status completion_error(const engine::Completion& completion) {
  // The engine cancels on its own only when it shuts down.
  const bool is_cancelled = completion.status.ok()
                                ? completion.reason == engine::FinishReason::kCancelled
                                : absl::IsCancelled(completion.status);
  if (is_cancelled) return absl::UnavailableError("the server shut down before the end");
  if (!completion.status.ok()) return completion.status;
  if (completion.reason == engine::FinishReason::kError) {
    return absl::InternalError("the request failed");
  }
  return absl::OkStatus();
}

}  // namespace pbserve::server
