#include "server/grpc/heap_trim.h"

#include <malloc.h>

#include <chrono>

namespace pbserve::server {
namespace {

// After the end of a call: gRPC frees a little later. Also the shortest time between two trims,
// which take about a millisecond for 100 MB.
constexpr auto kDelay = std::chrono::seconds(1);

}  // namespace

HeapTrim::HeapTrim() : thread_([this] { run(); }) {}

HeapTrim::~HeapTrim() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void HeapTrim::note() {
  {
    const std::lock_guard lock(mutex_);
    is_noted_ = true;
  }
  wake_.notify_one();
}

void HeapTrim::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return is_noted_ || is_over_; });
    if (wake_.wait_for(lock, kDelay, [this] { return is_over_; })) return;
    is_noted_ = false;
    lock.unlock();
    malloc_trim(0);
    lock.lock();
  }
}

}  // namespace pbserve::server
