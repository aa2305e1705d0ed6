// What one API key may have in flight: never more, and all of it comes back.
#include "server/key_use.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "server/api_error.h"

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;

TEST(KeyUse, RequestsBeyondTheLimitAreRefused) {
  const auto use = std::make_shared<KeyUse>(KeyLimits{.max_requests = 2});
  KeySlot first;
  KeySlot third;
  {
    KeySlot second;
    EXPECT_TRUE(first.take(use).ok());
    EXPECT_TRUE(second.take(use).ok());
    const absl::Status refused = third.take(use);
    EXPECT_EQ(http_status(refused), 429);
    EXPECT_EQ(grpc_code(refused), 8);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("server.max_requests_per_key = 2"));
    EXPECT_THAT(to_error_body(refused), HasSubstr(R"("code":"key_limit")"));
    EXPECT_THAT(to_error_body(refused), HasSubstr(R"("type":"rate_limit_error")"));
  }
  EXPECT_TRUE(third.take(use).ok());
}

TEST(KeyUse, TokensBeyondTheLimitAreRefused) {
  const auto use = std::make_shared<KeyUse>(KeyLimits{.max_tokens = 100});
  KeySlot first;
  KeySlot second;
  ASSERT_TRUE(first.take(use).ok());
  ASSERT_TRUE(second.take(use).ok());
  EXPECT_TRUE(first.charge(60).ok());
  const absl::Status refused = second.charge(41);
  EXPECT_EQ(http_status(refused), 429);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("has 60 tokens in flight, 41 more exceed server.max_tokens_per_key = 100"));
  first.give_back();
  EXPECT_TRUE(second.charge(100).ok());
}

// Another try would not help.
TEST(KeyUse, WhatNeverFitsIsTheRequestsFault) {
  const auto use = std::make_shared<KeyUse>(KeyLimits{.max_tokens = 100});
  KeySlot slot;
  ASSERT_TRUE(slot.take(use).ok());
  const absl::Status refused = slot.charge(101);
  EXPECT_EQ(http_status(refused), 400);
  EXPECT_EQ(error_param(refused), "max_tokens");
  EXPECT_EQ(use->num_tokens(), 0);
}

TEST(KeyUse, ComesBackOnce) {
  const auto use = std::make_shared<KeyUse>(KeyLimits{});
  {
    KeySlot slot;
    ASSERT_TRUE(slot.take(use).ok());
    ASSERT_TRUE(slot.charge(7).ok());
    EXPECT_EQ(use->num_requests(), 1);
    EXPECT_EQ(use->num_tokens(), 7);
    slot.give_back();
    slot.give_back();
    EXPECT_TRUE(slot.charge(9).ok());  // of no place
  }
  EXPECT_EQ(use->num_requests(), 0);
  EXPECT_EQ(use->num_tokens(), 0);
}

TEST(KeyUse, WithoutAKeyThereIsNoLimit) {
  KeySlot slot;
  EXPECT_TRUE(slot.take(nullptr).ok());
  EXPECT_TRUE(slot.charge(1 << 30).ok());
}

TEST(KeyUse, HoldsBesideManyThreads) {
  constexpr int kLimit = 3;
  const auto use = std::make_shared<KeyUse>(KeyLimits{.max_requests = kLimit, .max_tokens = 20});
  std::atomic<int> open = 0;
  std::atomic<int> most = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 2000; ++j) {
        KeySlot slot;
        if (!slot.take(use).ok()) continue;
        const int now = ++open;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        (void)slot.charge(10);  // refused or not
        EXPECT_LE(use->num_tokens(), 20);
        --open;
      }
    });
  }
  threads.clear();
  EXPECT_LE(most, kLimit);
  EXPECT_EQ(use->num_requests(), 0);
  EXPECT_EQ(use->num_tokens(), 0);
}

}  // namespace
}  // namespace pbserve::server
