#include "kernels/core/thread_pool.h"

#include "kernels/core/cgroup.h"

namespace pbserve::kernels {

ThreadPool::ThreadPool(int num_threads) {
  if (num_threads <= 0) {
    num_threads =
        num_usable_cpus(own_cgroup(), static_cast<int>(std::thread::hardware_concurrency()));
  }
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(int64_t count, const std::function<void(int64_t)>& body) {
  if (count <= 1 || workers_.empty()) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    body_ = &body;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    ++generation_;
  }
  start_.notify_all();
  drain(body, count);
  // No index is left. A worker that has not woken up by here stays asleep: waiting for it would
  // cost more than a small product takes.
  std::unique_lock lock(mutex_);
  body_ = nullptr;
  done_.wait(lock, [this] { return num_active_ == 0; });
}

void ThreadPool::drain(const std::function<void(int64_t)>& body, int64_t count) {
  for (;;) {
    const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= count) return;
    body(i);
  }
}

void ThreadPool::work() {
  int64_t seen = 0;
  for (;;) {
    const std::function<void(int64_t)>* body = nullptr;
    int64_t count = 0;
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || (body_ != nullptr && generation_ != seen); });
      if (stopping_) return;
      seen = generation_;
      ++num_active_;
      body = body_;
      count = count_;
    }
    drain(*body, count);
    std::lock_guard lock(mutex_);
    if (--num_active_ == 0) done_.notify_one();
  }
}

}  // namespace pbserve::kernels
