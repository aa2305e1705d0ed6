// Gives freed memory back to the system. gRPC keeps a message in thousands of small slices, which
// the allocator would hold on to for good once they are free.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

namespace pbserve::server {

class HeapTrim {
 public:
  HeapTrim();
  ~HeapTrim();  // joins
  HeapTrim(const HeapTrim&) = delete;
  HeapTrim& operator=(const HeapTrim&) = delete;

  // Much has been freed, or is about to be: looks within the next seconds. Thread-safe.
  void note();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_noted_ = false;
  bool is_over_ = false;
  std::thread thread_;
};

}  // namespace pbserve::server
