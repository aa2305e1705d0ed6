#include "kernels/core/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <set>

namespace pbserve::kernels {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 5));

TEST_P(ThreadPoolTest, CallsEveryIndexOnceForManyCounts) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.num_threads(), GetParam());
  for (int64_t count = 0; count < 300; ++count) {
    std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
    pool.parallel_for(count, [&](int64_t i) { calls[static_cast<size_t>(i)] += 1; });
    for (const auto& number : calls) ASSERT_EQ(number, 1) << "count " << count;
  }
}

TEST_P(ThreadPoolTest, ReturnsOnlyWhenAllWorkIsDone) {
  ThreadPool pool(GetParam());
  std::atomic<int> done = 0;
  pool.parallel_for(8, [&](int64_t i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i));
    done += 1;
  });
  EXPECT_EQ(done, 8);
}

TEST(ThreadPool, SpreadsBlockingWorkOverItsThreads) {
  ThreadPool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  std::atomic<int> arrived = 0;
  pool.parallel_for(3, [&](int64_t) {  // each item waits for the others: only 3 threads can finish
    arrived += 1;
    while (arrived < 3) std::this_thread::yield();
    std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(ids.size(), 3u);
}

TEST(ThreadPool, ZeroMeansOnePerHardwareThread) {
  ThreadPool pool(0);
  EXPECT_EQ(pool.num_threads(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace pbserve::kernels
