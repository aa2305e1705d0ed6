// A fixed set of threads. Work items are independent and each is computed by one thread, so results
// never depend on which thread took which item.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pbserve::kernels {

class ThreadPool {
 public:
  // `num_threads` counts the calling thread; 0 takes one per hardware thread that the
  // container may keep busy.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(i) for every i in [0, count) and returns when all are done. Indices are handed out
  // one by one, so uneven work balances. One caller at a time; body must not call the pool.
  void parallel_for(int64_t count, const std::function<void(int64_t)>& body);

 private:
  void work();
  void drain(const std::function<void(int64_t)>& body, int64_t count);

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const std::function<void(int64_t)>* body_ = nullptr;  // null between calls
  int64_t count_ = 0;
  std::atomic<int64_t> next_ = 0;
  int64_t generation_ = 0;
  int num_active_ = 0;  // workers inside body_
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace pbserve::kernels
