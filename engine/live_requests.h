// The requests between their submit and their end, and the door that a drain closes: who is through
// it is in the engine's queue, where the drain finds it. Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "absl/functional/function_ref.h"

namespace pbserve::engine {

class LiveRequests {
 public:
  // Counts a request if `enqueue` takes it; false, and `enqueue` is not called, once closed.
  // A close() meanwhile waits until it has returned.
  bool enter(absl::FunctionRef<bool()> enqueue) {
    const std::lock_guard lock(mutex_);
    if (is_closed_ || !enqueue()) return false;
    ++count_;
    return true;
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    if (--count_ == 0) none_left_.notify_all();
  }

  void close() {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
  }
  bool is_closed() const { return is_closed_; }

  // False if some are left when the time is over.
  bool wait_until_none(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    return none_left_.wait_for(lock, timeout, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_left_;
  std::atomic<bool> is_closed_ = false;  // written under mutex_
  int64_t count_ = 0;                    // guarded by mutex_
};

}  // namespace pbserve::engine
