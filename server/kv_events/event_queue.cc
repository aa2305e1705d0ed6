#include "server/kv_events/event_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace pbserve::server {
namespace {

int make_descriptor() {
  const int descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (descriptor < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  return descriptor;
}

}  // namespace

KvEventQueue::KvEventQueue(size_t max_events)
    : max_events_(max_events), descriptor_(make_descriptor()) {
  events_.reserve(max_events + 1);  // kLost behind the last
}

KvEventQueue::~KvEventQueue() { close(descriptor_); }

void KvEventQueue::push(KvEvent event) {
  const std::lock_guard lock(mutex_);
  if (events_.size() >= max_events_) return lose_locked();
  if (events_.empty()) wake();
  events_.push_back(std::move(event));
}

void KvEventQueue::lose() {
  const std::lock_guard lock(mutex_);
  lose_locked();
}

void KvEventQueue::lose_locked() {
  ++num_dropped_;
  const bool follows_lost = !events_.empty() && events_.back().kind == KvEvent::Kind::kLost;
  if (follows_lost || events_.size() > max_events_) return;
  if (events_.empty()) wake();
  events_.push_back({.kind = KvEvent::Kind::kLost, .tokens = {}, .source = nullptr});
}

void KvEventQueue::take(std::vector<KvEvent>* events) {
  events->clear();
  events->reserve(max_events_ + 1);  // becomes the queue's own
  const std::lock_guard lock(mutex_);
  uint64_t count = 0;
  [[maybe_unused]] const auto num_read = read(descriptor_, &count, sizeof(count));
  std::swap(*events, events_);
}

void KvEventQueue::wake() {
  const uint64_t one = 1;  // cannot fail: nobody counts up to 2^64
  [[maybe_unused]] const auto num_written = write(descriptor_, &one, sizeof(one));
}

}  // namespace pbserve::server
