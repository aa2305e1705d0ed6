#include "server/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <iterator>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "server/api_error.h"

namespace pbserve::server {
namespace {

using Clock = std::chrono::steady_clock;

// A few threads and the work that waits for them, the lowest key first.
class Threads {
 public:
  // At most `max_huge` of them have huge work at a time.
  Threads(int num_threads, int max_huge) : max_huge_(max_huge) {
    for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run(); });
  }

  // `weight`: how many times its own size may pass it, and one.
  void post(size_t bytes, uint64_t weight, std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      const uint64_t key = posted_bytes_ + weight * bytes;
      waiting_.emplace(key, Work{bytes >= WorkerPool::kHugeBytes, std::move(work)});
      posted_bytes_ += bytes;
    }
    changed_.notify_one();
  }

  void join() {
    {
      const std::lock_guard lock(mutex_);
      is_over_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  struct Work {
    bool is_huge;
    std::function<void()> run;
  };
  using Waiting = std::multimap<uint64_t, Work>;  // equal keys in the order of their arrival

  Waiting::iterator next() {
    return std::ranges::find_if(waiting_, [this](const auto& item) {
      return !item.second.is_huge || num_huge_ < max_huge_;
    });
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      auto found = waiting_.end();
      changed_.wait(lock, [&] {
        found = next();
        return found != waiting_.end() || (is_over_ && waiting_.empty());
      });
      if (found == waiting_.end()) return;
      {
        const Work work = std::move(waiting_.extract(found).mapped());
        num_huge_ += work.is_huge ? 1 : 0;
        lock.unlock();
        work.run();
        lock.lock();
        num_huge_ -= work.is_huge ? 1 : 0;
      }
      changed_.notify_all();  // huge work may go on, or all is done
    }
  }

  const int max_huge_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Waiting waiting_;
  uint64_t posted_bytes_ = 0;
  int num_huge_ = 0;
  bool is_over_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

struct WorkerPool::Impl {
  Impl(int num_threads, int num_large_threads)
      : small(num_threads, 0), large(num_large_threads, std::max(num_large_threads - 1, 1)) {}

  std::atomic<Clock::time_point> drain_end = Clock::time_point{};
  std::atomic<bool> refuses = false;
  Threads small;
  Threads large;
};

WorkerPool::WorkerPool(int num_threads, int num_large_threads)
    : impl_(std::make_unique<Impl>(num_threads, num_large_threads)) {}

WorkerPool::~WorkerPool() { join(); }

void WorkerPool::refuse(Clock::time_point drain_end) {
  impl_->drain_end = drain_end;
  impl_->refuses = true;
}

absl::Status WorkerPool::refusal() const {
  return not_ready(std::chrono::duration<double>(impl_->drain_end.load() - Clock::now()).count());
}

bool WorkerPool::refuses() const { return impl_->refuses; }

void WorkerPool::join() {
  impl_->small.join();
  impl_->large.join();
}

void WorkerPool::post(size_t work_bytes, std::function<void()> work) {
  if (work_bytes < kLargeBytes) return impl_->small.post(0, 1, std::move(work));
  constexpr uint64_t kWeight = 4;
  impl_->large.post(work_bytes, kWeight, std::move(work));
}

}  // namespace pbserve::server
