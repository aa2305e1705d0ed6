// MessageQueue: many threads push, one thread takes everything at once. The one way into the engine
// thread and into the output thread. Waiting sleeps on a condition variable. It has no limit of its
// own: what pushes is bounded elsewhere (waiting requests by the scheduler's options, one cancel
// per request, one token per sequence and step), and a cancel must not get lost behind the others.
#pragma once

#include <chrono>
#include <condition_variable>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

namespace pbserve::engine {

template <class T>
class MessageQueue {
 public:
  // False, and `value` is not moved from, once the queue is closed.
  bool push(T&& value) {
    {
      std::lock_guard lock(mutex_);
      if (is_closed_) return false;
      values_.push_back(std::move(value));
    }
    arrived_.notify_one();
    return true;
  }

  // Appends all waiting values to `out`, in the order of their pushes, after sleeping until there
  // is one, the queue is closed, or the time is over. Returns false if the queue is closed: what
  // was left is in `out`, and nothing will follow.
  bool wait_and_take_all(std::vector<T>& out, std::chrono::nanoseconds timeout) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, timeout, [this] { return !values_.empty() || is_closed_; });
    out.insert(out.end(), std::make_move_iterator(values_.begin()),
               std::make_move_iterator(values_.end()));
    values_.clear();
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

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<T> values_;
  bool is_closed_ = false;
};

}  // namespace pbserve::engine
