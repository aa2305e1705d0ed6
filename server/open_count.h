// Counts things that are open, and lets a shutdown wait for the last one. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace pbserve::server {

class OpenCount {
 public:
  // One thing, for as long as the scope lasts.
  class Scope {
   public:
    explicit Scope(OpenCount* count) : count_(count) { count_->change(+1); }
    ~Scope() { count_->change(-1); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    OpenCount* count_;
  };

  int64_t value() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }

  // False if something is open still.
  bool wait_for_none(std::chrono::duration<double> timeout) {
    std::unique_lock lock(mutex_);
    return none_.wait_for(lock, timeout, [this] { return value_ == 0; });
  }

 private:
  void change(int64_t by) {
    const std::lock_guard lock(mutex_);
    value_ += by;
    if (value_ == 0) none_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable none_;
  int64_t value_ = 0;
};

}  // namespace pbserve::server
