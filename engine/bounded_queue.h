// BoundedQueue: many threads push, one thread takes everything at once. The one way into the engine
// thread and into the output thread. Waiting sleeps on a condition variable.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

namespace pbserve::engine {

enum class PushResult { kOk, kFull, kClosed };

template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // Moves from `value` only if the answer is kOk.
  [[nodiscard]] PushResult try_push(T&& value) { return push(std::move(value), capacity_); }

  // For messages whose number another limit bounds (one cancel per request, one token per sequence
  // and step): they must not get lost behind a full queue. Never answers kFull.
  PushResult push_over_limit(T&& value) { return push(std::move(value), SIZE_MAX); }

  // Appends all waiting values to `out`, in the order of their pushes.
  void take_all(std::vector<T>& out) {
    std::lock_guard lock(mutex_);
    move_all(out);
  }

  // The same, after sleeping until there is a value, the queue is closed, or the time is over.
  // Returns false if the queue is closed: what was left is in `out`, and nothing will follow.
  bool wait_and_take_all(std::vector<T>& out, std::chrono::nanoseconds timeout) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, timeout, [this] { return !values_.empty() || is_closed_; });
    move_all(out);
    return !is_closed_;
  }

  // Refuses every push from here on; what waits can still be taken.
  void close() {
    {
      std::lock_guard lock(mutex_);
      is_closed_ = true;
    }
    arrived_.notify_all();
  }

  size_t size() const {
    std::lock_guard lock(mutex_);
    return values_.size();
  }

 private:
  PushResult push(T&& value, size_t capacity) {
    {
      std::lock_guard lock(mutex_);
      if (is_closed_) return PushResult::kClosed;
      if (values_.size() >= capacity) return PushResult::kFull;
      values_.push_back(std::move(value));
    }
    arrived_.notify_one();
    return PushResult::kOk;
  }

  void move_all(std::vector<T>& out) {
    out.insert(out.end(), std::make_move_iterator(values_.begin()),
               std::make_move_iterator(values_.end()));
    values_.clear();
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<T> values_;
  bool is_closed_ = false;
};

}  // namespace pbserve::engine
