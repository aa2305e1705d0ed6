// From the engine's thread, which never waits, to the publisher's: a bounded queue. What finds no
// room is dropped, and leaves one event kLost in its place.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "server/kv_events/event.h"

namespace pbserve::server {

class KvEventQueue {
 public:
  explicit KvEventQueue(size_t max_events);
  ~KvEventQueue();
  KvEventQueue(const KvEventQueue&) = delete;
  KvEventQueue& operator=(const KvEventQueue&) = delete;

  // The engine's thread; needs no memory of its own.
  void push(KvEvent event);
  // In the place of an event for which there was no memory.
  void lose();

  // The publisher's thread: all that waits, into `events`, in order. Clears the descriptor.
  void take(std::vector<KvEvent>* events);

  // Readable while events wait, and after wake().
  int descriptor() const { return descriptor_; }
  void wake();

  int64_t num_dropped() const { return num_dropped_; }

 private:
  void lose_locked();

  const size_t max_events_;
  const int descriptor_;  // eventfd
  std::atomic<int64_t> num_dropped_{0};
  std::mutex mutex_;
  std::vector<KvEvent> events_;
};

}  // namespace pbserve::server
