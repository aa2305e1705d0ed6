// Between the engine's output thread, which must not block, and a client, which may be slow or
// gone: a bounded queue of events. Beyond its bound, or where all responses together find no room
// any more, the request is cancelled; the reader is told why. Thread-safe; one reader.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <variant>

#include "engine/request.h"
#include "kernels/core/status.h"
#include "server/byte_budget.h"

namespace pbserve::server {

using ResponseEvent =
    std::variant<engine::Accepted, engine::PrefillProgress, engine::TextDelta, engine::Completion>;

struct ChannelOptions {
  int64_t capacity_bytes = 1 << 20;
  ByteBudget* buffers = nullptr;  // charged for what waits, if there is one; outlives the reader
  bool wants_progress = false;
  // Called when next() has something again after it returned nothing; from the engine's output
  // thread, outside the lock. Must not block.
  std::function<void()> on_ready;
  // Called once, when the request has ended; `reader_left` says that nobody heard it.
  std::function<void(const engine::Completion&, bool reader_left)> on_end;
};

class ResponseChannel : public std::enable_shared_from_this<ResponseChannel> {
 public:
  explicit ResponseChannel(ChannelOptions options);

  // The engine's end. Keeps the channel alive.
  std::unique_ptr<engine::ResponseSink> make_sink();

  // How to cancel the request: known once the engine has taken it, which may be after its first
  // events.
  void set_cancel(std::function<void()> cancel);

  // The oldest event; the Completion is the last one. After nothing, on_ready follows.
  std::optional<ResponseEvent> next();

  // The reader leaves: cancels unless the request has ended. on_ready is destroyed: it runs in no
  // thread when this returns, so that what it refers to may go, whenever the request ends. (It may
  // call this itself.)
  void abandon();

 private:
  class Sink;

  void push(ResponseEvent event);
  void end(engine::Completion completion);
  void cancel_now();
  void drop_events();  // under the mutex
  void wake();

  const ChannelOptions options_;     // but for on_ready
  std::recursive_mutex wake_mutex_;  // held while on_ready runs; taken before mutex_, if both are
  std::shared_ptr<const std::function<void()>> on_ready_;  // null once the reader has left
  std::mutex mutex_;
  std::deque<ResponseEvent> events_;
  int64_t num_bytes_ = 0;
  bool reader_waits_ = false;
  bool reader_left_ = false;
  absl::Status overflow_;    // not OK: why nothing more is taken
  ByteBudget::Lease lease_;  // for num_bytes_; of no budget once the reader has left
  bool ended_ = false;
  bool cancel_wanted_ = false;
  std::function<void()> cancel_;
};

}  // namespace pbserve::server
