#include "server/generation.h"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/string_view.h"
#include "server/api_error.h"
#include "server/json/body.h"

namespace pbserve::server {
namespace {

// Text that may quote the client: quoted and escaped as JSON, it is UTF-8 and one line.
std::string escaped(absl::string_view text) { return dump_json(Json(std::string(text))); }

// The HTTP status stands for the outcome on both transports: one field to search for.
void log_end(const std::string& route, const std::string& id, const engine::Completion& completion,
             bool reader_left) {
  const absl::Status error =
      reader_left ? absl::CancelledError("the client left") : completion_error(completion);
  const bool is_length = completion.reason == engine::FinishReason::kLength;
  spdlog::info(
      "{} id={} status={} prompt={} cached={} completion={} queue_ms={:.1f} ttft_ms={:.1f} "
      "density={:.3f} finish={}",
      route, id, http_status(error), completion.usage.prompt_tokens, completion.usage.cached_tokens,
      completion.usage.completion_tokens, completion.timings.queue_ms,
      completion.timings.first_token_ms, completion.sparse.density,
      error.ok() ? (is_length ? "length" : "stop") : escaped(error.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Generation>> Generation::start(engine::Engine* engine,
                                                              engine::Request request,
                                                              GenerationOptions options) {
  const auto on_end = [route = options.route, id = request.id](const engine::Completion& completion,
                                                               bool reader_left) {
    log_end(route, id, completion, reader_left);
  };
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

void log_refused(const std::string& route, const std::string& request_id,
                 const absl::Status& status) {
  spdlog::info("{} id={} status={} error={}", escaped(route), escaped(request_id),
               http_status(status), escaped(status.message()));
}

}  // namespace pbserve::server
