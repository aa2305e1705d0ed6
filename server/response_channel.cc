#include "server/response_channel.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

int64_t event_bytes(const ResponseEvent& event) {
  int64_t bytes = sizeof(ResponseEvent);
  if (const auto* delta = std::get_if<engine::TextDelta>(&event)) {
    bytes += static_cast<int64_t>(delta->text.size() + delta->token_ids.size() * sizeof(int32_t));
  }
  return bytes;
}

}  // namespace

class ResponseChannel::Sink : public engine::ResponseSink {
 public:
  explicit Sink(std::shared_ptr<ResponseChannel> channel) : channel_(std::move(channel)) {}

  void on_accepted(const engine::Accepted& accepted) override { channel_->push(accepted); }
  void on_progress(const engine::PrefillProgress& progress) override {
    if (channel_->options_.wants_progress) channel_->push(progress);
  }
  void on_text(engine::TextDelta delta) override { channel_->push(std::move(delta)); }
  void on_done(const engine::Completion& completion) override { channel_->end(completion); }

 private:
  std::shared_ptr<ResponseChannel> channel_;
};

ResponseChannel::ResponseChannel(ChannelOptions options)
    : options_({.capacity_bytes = options.capacity_bytes,
                .buffers = options.buffers,
                .wants_progress = options.wants_progress,
                .on_ready = nullptr,
                .on_end = std::move(options.on_end)}),
      on_ready_(std::make_shared<const std::function<void()>>(std::move(options.on_ready))),
      lease_(options_.buffers) {}

std::unique_ptr<engine::ResponseSink> ResponseChannel::make_sink() {
  return std::make_unique<Sink>(shared_from_this());
}

void ResponseChannel::set_cancel(std::function<void()> cancel) {
  std::function<void()> run;
  {
    const std::lock_guard lock(mutex_);
    cancel_ = std::move(cancel);
    if (cancel_wanted_ && !ended_) run = cancel_;
  }
  if (run) run();
}

std::optional<ResponseEvent> ResponseChannel::next() {
  const std::lock_guard lock(mutex_);
  if (events_.empty()) {
    reader_waits_ = true;
    return std::nullopt;
  }
  ResponseEvent event = std::move(events_.front());
  events_.pop_front();
  num_bytes_ -= event_bytes(event);
  (void)lease_.grow_to_response(num_bytes_);  // shrinks, which cannot fail
  return event;
}

void ResponseChannel::push(ResponseEvent event) {
  bool wakes = false;
  bool cancel = false;
  {
    const std::lock_guard lock(mutex_);
    if (reader_left_ || !overflow_.ok()) return;
    const int64_t num_bytes = num_bytes_ + event_bytes(event);
    if (num_bytes > options_.capacity_bytes) {
      overflow_ = absl::ResourceExhaustedError(
          absl::StrCat("the client reads too slowly: more than server.response_buffer_bytes = ",
                       options_.capacity_bytes, " of output waited for it"));
    } else if (!lease_.grow_to_response(num_bytes)) {
      overflow_ = buffers_full("the response", options_.buffers->limit_bytes());
      drop_events();  // others wait for that room
    } else {
      events_.push_back(std::move(event));
      num_bytes_ = num_bytes;
      wakes = std::exchange(reader_waits_, false);
    }
    cancel = !overflow_.ok();
  }
  if (cancel) cancel_now();
  if (wakes) wake();
}

void ResponseChannel::end(engine::Completion completion) {
  bool wakes = false;
  bool reader_left = false;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    reader_left = reader_left_;
    if (!overflow_.ok()) completion.status = overflow_;
    if (!reader_left_) {
      events_.push_back(completion);
      num_bytes_ += event_bytes(events_.back());
      wakes = std::exchange(reader_waits_, false);
    }
  }
  if (options_.on_end) options_.on_end(completion, reader_left);
  if (wakes) wake();
}

void ResponseChannel::abandon() {
  {
    const std::lock_guard lock(mutex_);
    if (reader_left_) return;
    reader_left_ = true;
    drop_events();
    lease_ = {};  // the engine may hold this longer than there is a budget
  }
  cancel_now();
  std::shared_ptr<const std::function<void()>> dropped;
  const std::lock_guard lock(wake_mutex_);
  dropped = std::move(on_ready_);
}

void ResponseChannel::drop_events() {
  events_.clear();
  num_bytes_ = 0;
  lease_ = ByteBudget::Lease(options_.buffers);
}

void ResponseChannel::wake() {
  const std::lock_guard lock(wake_mutex_);
  const auto on_ready = on_ready_;  // stays while it runs, also if it abandons the channel
  if (on_ready) (*on_ready)();
}

void ResponseChannel::cancel_now() {
  std::function<void()> run;
  {
    const std::lock_guard lock(mutex_);
    cancel_wanted_ = true;
    if (!ended_) run = cancel_;
  }
  if (run) run();
}

}  // namespace pbserve::server
