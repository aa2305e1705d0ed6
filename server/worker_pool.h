// Threads for work that is too long for an I/O thread: parsing, templates, tokenising. Large
// inputs have a thread of their own, so that small ones never wait behind them.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "kernels/core/status.h"

namespace pbserve::server {

class WorkerPool {
 public:
  // One thread for large work, `num_threads` for the rest.
  explicit WorkerPool(int num_threads);
  ~WorkerPool();  // join()
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // `work_bytes` is the size of the input. The queue is bounded by its callers: each connection
  // or call has at most one piece of work in it.
  void post(size_t work_bytes, std::function<void()> work);

  // From here on work that has not begun is to answer refusal() without being done; what runs has
  // until `drain_end`.
  void refuse(std::chrono::steady_clock::time_point drain_end);
  bool refuses() const;
  absl::Status refusal() const;

  // Returns when everything posted has run. Nothing may be posted afterwards.
  void join();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
