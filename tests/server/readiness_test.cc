// When the server is ready, and that it does not flap.
#include "server/readiness.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "server/descriptor_watch.h"
#include "tests/engine/demo_engine.h"

namespace pbserve::server {
namespace {

ReadyRule::Facts queue(double fill) {
  ReadyRule::Facts facts;
  facts.queue_fill = fill;
  return facts;
}

ReadyRule::Facts descriptors(int64_t num_free, double s_since_used_up = 1e9) {
  ReadyRule::Facts facts;
  facts.num_free_descriptors = num_free;
  facts.s_since_descriptors_used_up = s_since_used_up;
  return facts;
}

TEST(ReadyRule, AFullQueueMustBecomeMuchEmptier) {
  ReadyRule rule;
  EXPECT_EQ(rule.decide(queue(0.99)), ReadyState::kReady);
  EXPECT_EQ(rule.decide(queue(1)), ReadyState::kQueueFull);
  EXPECT_EQ(rule.decide(queue(0.99)), ReadyState::kQueueFull);
  EXPECT_EQ(rule.decide(queue(0.79)), ReadyState::kReady);
  EXPECT_EQ(rule.decide(queue(0.99)), ReadyState::kReady);
}

TEST(ReadyRule, DescriptorsMustBePlentyAgain) {
  ReadyRule rule;
  EXPECT_EQ(rule.decide(descriptors(16)), ReadyState::kReady);
  EXPECT_EQ(rule.decide(descriptors(15)), ReadyState::kNoDescriptors);
  EXPECT_EQ(rule.decide(descriptors(31)), ReadyState::kNoDescriptors);
  EXPECT_EQ(rule.decide(descriptors(32)), ReadyState::kReady);
  EXPECT_EQ(rule.decide(descriptors(1000, 1.9)), ReadyState::kNoDescriptors);
  EXPECT_EQ(rule.decide(descriptors(1000, 2.1)), ReadyState::kReady);
}

TEST(ReadyRule, EveryStateHasItsReason) {
  EXPECT_STREQ(reason_of(ReadyState::kReady), "");
  EXPECT_STREQ(reason_of(ReadyState::kDraining), "draining");
  EXPECT_STREQ(reason_of(ReadyState::kNoDescriptors), "out of descriptors");
  EXPECT_STREQ(reason_of(ReadyState::kQueueFull), "queue full");
}

// For want of memory it may; nobody else looks after the readiness.
TEST(Readiness, WhatALookThrowsEndsNoThreadAndTheNextOneTells) {
  const auto engine = engine::make_engine(engine::demo_config());
  std::atomic<int> num_told = 0;
  Readiness readiness(engine.get());
  readiness.set_listener([&](bool is_ready) {
    if (!is_ready && ++num_told == 1) throw std::runtime_error("no memory");
  });
  note_descriptors_used_up();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (num_told < 2 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(num_told, 2);
  readiness.set_listener(nullptr);  // waits for the look that told
  EXPECT_EQ(readiness.state(), ReadyState::kNoDescriptors);
}

}  // namespace
}  // namespace pbserve::server
