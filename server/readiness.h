// Whether more requests should be sent here: decided in this one place for /ready, the admin port
// and gRPC's health.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>

#include "engine/engine.h"

namespace pbserve::server {

enum class ReadyState : uint8_t { kReady, kDraining, kNoDescriptors, kQueueFull };

// "" where it is ready.
const char* reason_of(ReadyState state);

// The decision. What made it not ready must be better than it had to be before it is ready again:
// a balancer that follows it would otherwise be sent back and forth.
class ReadyRule {
 public:
  struct Facts {
    double queue_fill = 0;  // of the fullest bound; 1: requests are refused
    int64_t num_free_descriptors = std::numeric_limits<int64_t>::max();
    double s_since_descriptors_used_up = std::numeric_limits<double>::infinity();
  };
  ReadyState decide(const Facts& facts);

 private:
  ReadyState state_ = ReadyState::kReady;
};

// Looks several times a second. Thread-safe.
class Readiness {
 public:
  explicit Readiness(const engine::Engine* engine);
  ~Readiness();
  Readiness(const Readiness&) = delete;
  Readiness& operator=(const Readiness&) = delete;

  ReadyState state() const { return state_; }
  bool is_draining() const { return state_ == ReadyState::kDraining; }

  // For good, and told before this returns.
  void set_draining();

  // Called with whether it is ready, now and whenever that changes, by one thread at a time; from
  // the next call on not any more.
  using Listener = std::function<void(bool is_ready)>;
  void set_listener(Listener listener);

 private:
  void run();
  void set_state_locked(ReadyState state);

  const engine::Engine* const engine_;
  std::mutex mutex_;  // held while the listener runs
  std::condition_variable wake_;
  Listener listener_;
  bool is_over_ = false;
  std::atomic<ReadyState> state_ = ReadyState::kReady;  // written under the mutex
  std::thread thread_;
};

}  // namespace pbserve::server
