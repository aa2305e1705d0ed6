// One request in the engine, seen from the server: its events, and its end when the owner goes.
// Dropping a Generation cancels the request, so a client that leaves frees its pages whatever the
// code was doing for it.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "engine/engine.h"
#include "server/open_request.h"
#include "server/response_channel.h"

namespace pbserve::server {

struct GenerationOptions {
  std::shared_ptr<OpenRequest> open;  // told of the end
  ByteBudget* buffers = nullptr;      // see ChannelOptions
  int64_t buffer_bytes = 1 << 20;
  bool wants_progress = false;
  std::function<void()> on_ready;  // see ChannelOptions
};

class Generation {
 public:
  // Blocks while the engine renders and tokenises.
  static absl::StatusOr<std::unique_ptr<Generation>> start(engine::Engine* engine,
                                                           engine::Request request,
                                                           GenerationOptions options);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  std::optional<ResponseEvent> next() { return channel_->next(); }

 private:
  explicit Generation(std::shared_ptr<ResponseChannel> channel);

  std::shared_ptr<ResponseChannel> channel_;
};

// Not OK if the request did not end as the client asked: failed, or cut off by a shutdown.
absl::Status completion_error(const engine::Completion& completion);

}  // namespace pbserve::server
