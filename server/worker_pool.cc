#include "server/worker_pool.h"

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <utility>

#include "server/api_error.h"

namespace pbserve::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLargeBytes = 256 << 10;  // about 25 ms of tokenising at 10 MB/s

}  // namespace

struct WorkerPool::Impl {
  explicit Impl(int num_threads) : small(static_cast<size_t>(num_threads)), large(1) {}

  std::atomic<Clock::time_point> drain_end = Clock::time_point{};
  std::atomic<bool> refuses = false;
  boost::asio::thread_pool small;
  boost::asio::thread_pool large;
};

WorkerPool::WorkerPool(int num_threads) : impl_(std::make_unique<Impl>(num_threads)) {}

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
  boost::asio::post(work_bytes < kLargeBytes ? impl_->small : impl_->large, std::move(work));
}

}  // namespace pbserve::server
