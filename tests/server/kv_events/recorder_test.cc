// What the recorder makes of the cache's pages, and what the queue behind it loses, visibly.
#include "server/kv_events/recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include "server/kv_events/block_hash.h"

namespace pbserve::server {
namespace {

using engine::CacheRoot;
using engine::Tier;
using ::testing::ElementsAre;
using ::testing::StartsWith;
using Kind = KvEvent::Kind;

const KvEventNames kSparse{
    .topic = "kv@pod@m", .model = "m", .made_by = "pbs .9", .pbs_made_by = "pbs .9"};
const KvEventNames kDense{
    .topic = "kv@pod@m", .model = "m", .made_by = "dense", .pbs_made_by = "pbs .9"};

std::string root(const char* made_by, const char* salt = "") {
  return CacheRoot{.made_by = made_by, .salt = salt}.text();
}

std::vector<KvEvent> take(KvEventQueue* queue) {
  std::vector<KvEvent> events;
  queue->take(&events);
  return events;
}

bool is_readable(const KvEventQueue& queue) {
  pollfd item{.fd = queue.descriptor(), .events = POLLIN, .revents = 0};
  return poll(&item, 1, 0) == 1;
}

TEST(CacheRoot, IsReadAsItWasWritten) {
  const std::string text = root("pbs .9", "a|b");
  EXPECT_EQ(CacheRoot::parse(text).made_by, "pbs .9");
  EXPECT_EQ(CacheRoot::parse(text).salt, "a|b");
  EXPECT_EQ(CacheRoot::parse(root("dense")).salt, "");
}

TEST(KvTopic, EachWayOfMakingPagesIsAModel) {
  EXPECT_EQ(kv_topic(kSparse, "pbs .9"), "kv@pod@m");
  EXPECT_EQ(kv_topic(kSparse, "dense"), "kv@pod@m-dense");
  EXPECT_EQ(kv_topic(kSparse, "any"), "kv@pod@m");
  EXPECT_EQ(kv_topic(kDense, "dense"), "kv@pod@m");
  EXPECT_EQ(kv_topic(kDense, "pbs .9"), "kv@pod@m-pbs");
  EXPECT_THAT(kv_topic(kSparse, "pbs .5"), StartsWith("kv@pod@m-pbs-"));
  EXPECT_NE(kv_topic(kSparse, "pbs .5"), kv_topic(kSparse, "pbs .6"));
}

TEST(KvEventRecorder, BeginsWithAnEmptyCacheForBothModels) {
  for (const KvEventNames& names : {kSparse, kDense}) {
    KvEventQueue queue(10);
    const KvEventRecorder recorder(names, &queue);
    const auto events = take(&queue);
    ASSERT_EQ(events.size(), 2);
    EXPECT_EQ(events[0].kind, Kind::kCleared);
    EXPECT_EQ(events[1].kind, Kind::kCleared);
    EXPECT_EQ(events[0].source->topic, "kv@pod@m");
    EXPECT_EQ(events[1].source->topic,
              names.made_by == "dense" ? "kv@pod@m-pbs" : "kv@pod@m-dense");
  }
}

TEST(KvEventRecorder, ChainsHashesAndKeepsRootsApart) {
  KvEventQueue queue(10);
  KvEventRecorder recorder(kSparse, &queue);
  take(&queue);
  const std::vector<int32_t> page{1, 2, 3};
  const uint64_t first = recorder.on_stored(root("dense"), 0, page, Tier::kDevice);
  const uint64_t second = recorder.on_stored(root("dense"), first, page, Tier::kDevice);
  const uint64_t salted = recorder.on_stored(root("dense", "s"), 0, page, Tier::kDevice);
  const uint64_t sparse = recorder.on_stored(root("pbs .9"), 0, page, Tier::kHost);
  recorder.on_removed(root("dense"), second, Tier::kDevice);
  EXPECT_EQ(first, block_hash(root_hash("m", "dense|"), page));
  EXPECT_EQ(second, block_hash(first, page));
  EXPECT_THAT(std::set({first, second, salted, sparse}), ::testing::SizeIs(4));

  const auto events = take(&queue);
  ASSERT_EQ(events.size(), 5);
  EXPECT_EQ(events[1].parent, first);
  EXPECT_EQ(events[1].tokens, page);
  EXPECT_EQ(events[2].source->salt, "s");
  EXPECT_EQ(events[2].source->topic, "kv@pod@m-dense");
  EXPECT_EQ(events[3].source->topic, "kv@pod@m");
  EXPECT_EQ(events[3].tier, Tier::kHost);
  EXPECT_EQ(events[4].kind, Kind::kRemoved);
  EXPECT_EQ(events[4].hash, second);
  EXPECT_EQ(events[4].source->topic, "kv@pod@m-dense");
}

TEST(KvEventQueue, WhatFindsNoRoomLeavesOneMarkInItsPlace) {
  KvEventQueue queue(2);
  const auto push = [&](uint64_t hash) {
    queue.push({.kind = Kind::kRemoved, .hash = hash, .tokens = {}, .source = nullptr});
  };
  const auto kinds = [&] {
    std::vector<Kind> found;
    for (const KvEvent& event : take(&queue)) found.push_back(event.kind);
    return found;
  };
  for (uint64_t hash = 1; hash <= 5; ++hash) push(hash);
  EXPECT_EQ(queue.num_dropped(), 3);
  EXPECT_THAT(kinds(), ElementsAre(Kind::kRemoved, Kind::kRemoved, Kind::kLost));
  push(6);
  EXPECT_THAT(kinds(), ElementsAre(Kind::kRemoved));
  queue.lose();  // for want of memory
  push(7);
  queue.lose();
  queue.lose();
  EXPECT_THAT(kinds(), ElementsAre(Kind::kLost, Kind::kRemoved, Kind::kLost));
  EXPECT_EQ(queue.num_dropped(), 6);
}

TEST(KvEventQueue, ItsDescriptorWakes) {
  KvEventQueue queue(1);
  EXPECT_FALSE(is_readable(queue));
  queue.push({.tokens = {}, .source = nullptr});
  EXPECT_TRUE(is_readable(queue));
  take(&queue);
  EXPECT_FALSE(is_readable(queue));
  queue.wake();
  EXPECT_TRUE(is_readable(queue));
}

}  // namespace
}  // namespace pbserve::server
