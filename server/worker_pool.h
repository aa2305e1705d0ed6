// Threads for work that is too long for an I/O thread: parsing, templates, tokenising. Large
// inputs have threads of their own, so that small ones never wait behind them; and of these all but
// one may have a huge input, so that a text of a million tokens does not stop the merely large.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "kernels/core/status.h"

namespace pbserve::server {

class WorkerPool {
 public:
  static constexpr size_t kLargeBytes = 256 << 10;  // about 25 ms of tokenising at 10 MB/s
  static constexpr size_t kHugeBytes = 2 << 20;

  // Threads for small work and for large work. With one for large work it has the huge too.
  WorkerPool(int num_threads, int num_large_threads);
  ~WorkerPool();  // join()
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // `work_bytes` is the size of the input. The queue is bounded by its callers: each connection
  // or call has at most one piece of work in it. `work` must not throw. Large work is done in the
  // order of its arrival, but for smaller inputs that pass larger ones: an input is passed by at
  // most three times its own size.
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
