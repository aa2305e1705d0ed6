// Threads for work that is too long for an I/O thread: parsing, templates, tokenising. Large
// inputs have a thread of their own, so that small ones never wait behind them.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

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

  // From here on work that has not begun is to answer without being done: see refuses().
  void refuse();
  bool refuses() const;

  // Returns when everything posted has run. Nothing may be posted afterwards.
  void join();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
