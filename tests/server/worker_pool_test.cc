// Who waits for whom: small work for nobody large, large work for nothing huge, nobody for ever.
#include "server/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <string>
#include <vector>

namespace pbserve::server {
namespace {

constexpr size_t kSmall = 100;
constexpr size_t kLarge = WorkerPool::kLargeBytes;
constexpr size_t kHuge = WorkerPool::kHugeBytes;
constexpr auto kLongest = std::chrono::seconds(30);

// Work that runs until it is let go.
class Blocker {
 public:
  std::function<void()> work() {
    return [this] {
      ++num_running_;
      gate_.wait();
    };
  }
  void wait_until_running(int number) const {
    while (num_running_ < number) std::this_thread::yield();
  }
  int num_running() const { return num_running_; }
  void let_go() { opened_.set_value(); }

 private:
  std::promise<void> opened_;
  std::shared_future<void> gate_ = opened_.get_future().share();
  std::atomic<int> num_running_ = 0;
};

bool runs(WorkerPool* pool, size_t bytes) {
  auto done = std::make_shared<std::promise<void>>();
  pool->post(bytes, [done] { done->set_value(); });
  return done->get_future().wait_for(kLongest) == std::future_status::ready;
}

TEST(WorkerPool, SmallWorkNeverWaitsForLarge) {
  Blocker large;  // outlives the work
  WorkerPool pool(1, 2);
  for (int i = 0; i < 4; ++i) pool.post(kLarge, large.work());
  large.wait_until_running(2);
  EXPECT_TRUE(runs(&pool, kSmall));
  large.let_go();
}

TEST(WorkerPool, HugeWorkLeavesAThreadToTheLarge) {
  Blocker huge;
  WorkerPool pool(1, 2);
  for (int i = 0; i < 4; ++i) pool.post(kHuge, huge.work());
  huge.wait_until_running(1);
  EXPECT_TRUE(runs(&pool, kLarge));
  EXPECT_EQ(huge.num_running(), 1);
  huge.let_go();
}

TEST(WorkerPool, OneLargeThreadDoesTheHugeToo) {
  WorkerPool pool(1, 1);
  EXPECT_TRUE(runs(&pool, kHuge));
}

TEST(WorkerPool, SmallerInputsPassLargerOnesAndNotForEver) {
  std::string order;
  std::mutex mutex;
  {
    Blocker first;
    WorkerPool pool(1, 1);
    pool.post(kLarge, first.work());
    first.wait_until_running(1);
    const auto post = [&](size_t bytes, char name) {
      pool.post(bytes, [&, name] {
        const std::lock_guard lock(mutex);
        order += name;
      });
    };
    post(4 * kLarge, 'H');
    for (int i = 0; i < 20; ++i) post(kLarge, 'l');
    first.let_go();
  }
  ASSERT_EQ(order.size(), 21u);
  const size_t passed_by = order.find('H');
  EXPECT_GE(passed_by, 5u);
  EXPECT_LE(passed_by, 12u) << "three times its size, then it is its turn: " << order;
}

TEST(WorkerPool, JoinRunsWhatWasPosted) {
  std::atomic<int> num_done = 0;
  WorkerPool pool(1, 1);
  for (int i = 0; i < 100; ++i) pool.post(i % 2 == 0 ? kSmall : kHuge, [&] { ++num_done; });
  pool.join();
  EXPECT_EQ(num_done, 100);
}

}  // namespace
}  // namespace pbserve::server
