#include "server/readiness.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "server/descriptor_watch.h"
#include "server/round_guard.h"

namespace pbserve::server {
namespace {

constexpr auto kPause = std::chrono::milliseconds(100);
constexpr int kPausesPerCount = 10;  // counting descriptors takes milliseconds where they are many

// Probes and scrapes need a few.
constexpr int64_t kReservedDescriptors = 16;
constexpr double kRecentS = 2;
constexpr double kRoomAgain = 0.8;  // of a queue that was full

bool lacks_descriptors(const ReadyRule::Facts& facts, bool lacked_them) {
  const int64_t wanted = lacked_them ? 2 * kReservedDescriptors : kReservedDescriptors;
  return facts.s_since_descriptors_used_up < kRecentS || facts.num_free_descriptors < wanted;
}

}  // namespace

const char* reason_of(ReadyState state) {
  switch (state) {
    case ReadyState::kReady:
      return "";
    case ReadyState::kDraining:
      return "draining";
    case ReadyState::kNoDescriptors:
      return "out of descriptors";
    case ReadyState::kQueueFull:
      return "queue full";
  }
  return "";
}

ReadyState ReadyRule::decide(const Facts& facts) {
  const double queue_bound = state_ == ReadyState::kQueueFull ? kRoomAgain : 1.0;
  if (lacks_descriptors(facts, state_ == ReadyState::kNoDescriptors)) {
    state_ = ReadyState::kNoDescriptors;
  } else if (facts.queue_fill >= queue_bound) {
    state_ = ReadyState::kQueueFull;
  } else {
    state_ = ReadyState::kReady;
  }
  return state_;
}

Readiness::Readiness(const engine::Engine* engine) : engine_(engine), thread_([this] { run(); }) {}

Readiness::~Readiness() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Readiness::set_draining() {
  const std::lock_guard lock(mutex_);
  set_state_locked(ReadyState::kDraining);
}

void Readiness::set_listener(Listener listener) {
  const std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
  if (listener_) listener_(state_ == ReadyState::kReady);
}

void Readiness::run() {
  ReadyRule rule;
  ReadyRule::Facts facts;
  RoundGuard guard("readiness");
  std::unique_lock lock(mutex_);
  for (int i = 0; !wake_.wait_for(lock, kPause, [this] { return is_over_; }); ++i) {
    guard.run([&] {
      facts.queue_fill = engine_->queue_fill();
      facts.s_since_descriptors_used_up = s_since_descriptors_used_up();
      if (i % kPausesPerCount == 0) facts.num_free_descriptors = num_free_descriptors();
      set_state_locked(rule.decide(facts));
    });
  }
}

void Readiness::set_state_locked(ReadyState state) {
  if (is_draining() || state == state_) return;
  const bool was_ready = state_ == ReadyState::kReady;
  const bool is_ready = state == ReadyState::kReady;
  if (listener_ && is_ready != was_ready) listener_(is_ready);  // again, if it throws
  state_ = state;
  spdlog::info("{}{}", is_ready ? "ready again" : "not ready: ", reason_of(state));
}

}  // namespace pbserve::server
