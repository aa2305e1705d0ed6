#include "engine/message_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace pbserve::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(MessageQueue, KeepsTheOrder) {
  MessageQueue<int> queue;
  for (int value : {1, 2, 3}) EXPECT_TRUE(queue.push(std::move(value)));
  std::vector<int> out{0};
  EXPECT_TRUE(queue.wait_and_take_all(out, milliseconds(0)));
  EXPECT_EQ(out, (std::vector<int>{0, 1, 2, 3}));
}

TEST(MessageQueue, ARefusedValueStaysWithItsOwner) {
  MessageQueue<std::unique_ptr<int>> queue;
  auto value = std::make_unique<int>(7);
  queue.close();
  EXPECT_FALSE(queue.push(std::move(value)));
  EXPECT_NE(value, nullptr);
}

TEST(MessageQueue, WaitingEndsWithTheTimeout) {
  MessageQueue<int> queue;
  std::vector<int> out;
  const auto begin = steady_clock::now();
  EXPECT_TRUE(queue.wait_and_take_all(out, milliseconds(20)));
  EXPECT_GE(steady_clock::now() - begin, milliseconds(20));
  EXPECT_TRUE(out.empty());
}

TEST(MessageQueue, WaitingEndsWithAValue) {
  MessageQueue<int> queue;
  std::thread pusher([&] {
    std::this_thread::sleep_for(milliseconds(10));
    EXPECT_TRUE(queue.push(5));
  });
  std::vector<int> out;
  EXPECT_TRUE(queue.wait_and_take_all(out, std::chrono::hours(1)));
  EXPECT_EQ(out, std::vector<int>{5});
  pusher.join();
}

TEST(MessageQueue, CloseWakesTheReaderAndKeepsWhatWaits) {
  MessageQueue<int> queue;
  ASSERT_TRUE(queue.push(1));
  queue.close();
  EXPECT_FALSE(queue.push(2));
  std::vector<int> out;
  EXPECT_FALSE(queue.wait_and_take_all(out, std::chrono::hours(1)));
  EXPECT_EQ(out, std::vector<int>{1});

  MessageQueue<int> idle;
  std::thread closer([&] {
    std::this_thread::sleep_for(milliseconds(10));
    idle.close();
  });
  EXPECT_FALSE(idle.wait_and_take_all(out, std::chrono::hours(1)));
  closer.join();
}

TEST(MessageQueue, NothingIsLostAmongManyPushers) {
  constexpr int kNumPushers = 4;
  constexpr int kNumValues = 20000;
  MessageQueue<std::pair<int, int>> queue;
  std::vector<std::thread> pushers;
  for (int pusher = 0; pusher < kNumPushers; ++pusher) {
    pushers.emplace_back([&queue, pusher] {
      for (int value = 0; value < kNumValues; ++value) {
        EXPECT_TRUE(queue.push({pusher, value}));
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
    for (const auto& [pusher, value] : out) EXPECT_EQ(value, next[pusher]++);
    num_taken += static_cast<int>(out.size());
  }
  for (std::thread& pusher : pushers) pusher.join();
}

}  // namespace
}  // namespace pbserve::engine
