#include "engine/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace pbserve::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(BoundedQueue, KeepsOrderAndRefusesPastItsCapacity) {
  BoundedQueue<int> queue(2);
  EXPECT_EQ(queue.try_push(1), PushResult::kOk);
  EXPECT_EQ(queue.try_push(2), PushResult::kOk);
  EXPECT_EQ(queue.try_push(3), PushResult::kFull);
  EXPECT_EQ(queue.push_over_limit(4), PushResult::kOk);
  EXPECT_EQ(queue.size(), 3u);

  std::vector<int> out{0};
  queue.take_all(out);
  EXPECT_EQ(out, (std::vector<int>{0, 1, 2, 4}));
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_EQ(queue.try_push(5), PushResult::kOk);
}

TEST(BoundedQueue, ARefusedValueStaysWithItsOwner) {
  BoundedQueue<std::unique_ptr<int>> queue(0);
  auto value = std::make_unique<int>(7);
  EXPECT_EQ(queue.try_push(std::move(value)), PushResult::kFull);
  ASSERT_NE(value, nullptr);
  queue.close();
  EXPECT_EQ(queue.push_over_limit(std::move(value)), PushResult::kClosed);
  EXPECT_NE(value, nullptr);
}

TEST(BoundedQueue, WaitingEndsWithTheTimeout) {
  BoundedQueue<int> queue(1);
  std::vector<int> out;
  const auto begin = steady_clock::now();
  EXPECT_TRUE(queue.wait_and_take_all(out, milliseconds(20)));
  EXPECT_GE(steady_clock::now() - begin, milliseconds(20));
  EXPECT_TRUE(out.empty());
}

TEST(BoundedQueue, WaitingEndsWithAValue) {
  BoundedQueue<int> queue(1);
  std::thread pusher([&] {
    std::this_thread::sleep_for(milliseconds(10));
    EXPECT_EQ(queue.try_push(5), PushResult::kOk);
  });
  std::vector<int> out;
  EXPECT_TRUE(queue.wait_and_take_all(out, std::chrono::hours(1)));
  EXPECT_EQ(out, std::vector<int>{5});
  pusher.join();
}

TEST(BoundedQueue, CloseWakesTheReaderAndKeepsWhatWaits) {
  BoundedQueue<int> queue(4);
  ASSERT_EQ(queue.try_push(1), PushResult::kOk);
  queue.close();
  EXPECT_EQ(queue.try_push(2), PushResult::kClosed);
  std::vector<int> out;
  EXPECT_FALSE(queue.wait_and_take_all(out, std::chrono::hours(1)));
  EXPECT_EQ(out, std::vector<int>{1});

  BoundedQueue<int> idle(4);
  std::thread closer([&] {
    std::this_thread::sleep_for(milliseconds(10));
    idle.close();
  });
  EXPECT_FALSE(idle.wait_and_take_all(out, std::chrono::hours(1)));
  closer.join();
}

TEST(BoundedQueue, NothingIsLostAmongManyPushers) {
  constexpr int kNumPushers = 4;
  constexpr int kNumValues = 20000;
  BoundedQueue<std::pair<int, int>> queue(64);
  std::vector<std::thread> pushers;
  for (int pusher = 0; pusher < kNumPushers; ++pusher) {
    pushers.emplace_back([&queue, pusher] {
      for (int value = 0; value < kNumValues; ++value) {
        while (queue.try_push({pusher, value}) != PushResult::kOk) std::this_thread::yield();
      }
    });
  }
  std::vector<int> next(kNumPushers, 0);
  std::vector<std::pair<int, int>> out;
  int num_taken = 0;
  while (num_taken < kNumPushers * kNumValues) {
    out.clear();
    queue.wait_and_take_all(out, std::chrono::seconds(10));
    ASSERT_FALSE(out.empty());
    ASSERT_LE(out.size(), 64u);
    for (const auto& [pusher, value] : out) EXPECT_EQ(value, next[pusher]++);
    num_taken += static_cast<int>(out.size());
  }
  for (std::thread& pusher : pushers) pusher.join();
}

}  // namespace
}  // namespace pbserve::engine
