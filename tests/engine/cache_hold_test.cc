// Held pages in a KV cache pool: what they outlive, where they go, what they cost others, and who
// breaks the holds.
#include <gtest/gtest.h>

#include <chrono>

#include "tests/engine/pool_pages.h"
#include "tests/engine/sequence_factory.h"

namespace pbserve::engine {
namespace {

using std::chrono::seconds;

constexpr int64_t kAllSpare = 1 << 20;
const KvCacheShape kShape{
    .num_layers = 1, .num_kv_heads = 1, .head_dim = 2, .dtype = kernels::DType::kF32};

class CacheHold : public testing::Test {
 protected:
  void make(int64_t num_pages, int64_t num_host_pages, double max_held_share = 1) {
    stream_.emplace(*kernels::Stream::create({}, 1));
    pool_ = *KvCachePool::create(*stream_, kShape,
                                 {.num_pages = num_pages,
                                  .num_host_pages = num_host_pages,
                                  .max_held_share = max_held_share});
  }

  // Leaves a prompt's pages in the cache, held for so long. Returns the number of held ones.
  int32_t cache(const std::string& letters, seconds held = seconds(0)) {
    BlockTable table;
    PrefixMatch match;
    pool_->refresh("dense|", tokens_of(letters), match);
    EXPECT_TRUE(pool_->acquire(match, match.num_pages(), table));
    const auto num_new = static_cast<int32_t>(letters.size()) - match.num_pages();
    EXPECT_TRUE(pool_->allocate(table, num_new));
    return leave(letters, table, held);
  }
  int32_t leave(const std::string& letters, BlockTable& table, seconds held) {
    pool_->insert("dense|", tokens_of(letters), table, table.num_pages());
    const int32_t count = held.count() > 0 ? pool_->hold(table, now_ + held, kAllSpare) : 0;
    table.clear();
    pool_->check_integrity({});
    return count;
  }
  int32_t found(const std::string& letters) { return num_found(*pool_, "dense|", letters); }
  void pass(seconds time) {
    now_ += time;
    pool_->expire_holds(now_);
    pool_->check_integrity({});
  }
  // A prompt that begins with what is cached of `letters` and has so many pages.
  void make_way_for(const std::string& letters, int64_t num_pages) {
    PrefixMatch match;
    pool_->refresh("dense|", tokens_of(letters), match);
    pool_->break_holds_for(match, match.num_pages(), num_pages);
    pool_->check_integrity({});
  }

  std::optional<kernels::Stream> stream_;
  std::unique_ptr<KvCachePool> pool_;
  Clock::time_point now_ = Clock::now();
};

TEST_F(CacheHold, AHeldPrefixOutlivesWhatIsUsedLater) {
  make(8, 0);
  EXPECT_EQ(cache("abc", seconds(10)), 3);
  EXPECT_EQ(pool_->num_available(), 5) << "held pages cannot be had";
  cache("vwxyz");
  cache("VWXYZ");
  EXPECT_EQ(found("abc"), 3);
  EXPECT_EQ(found("vwxyz"), 0);
  BlockTable table;
  EXPECT_FALSE(pool_->allocate(table, 6));
  EXPECT_TRUE(pool_->allocate(table, 5));
  EXPECT_EQ(found("abc"), 3);
}

TEST_F(CacheHold, ItEndsWhenItsTimeHasCome) {
  make(8, 0);
  cache("abc", seconds(10));
  pass(seconds(9));
  EXPECT_EQ(pool_->hold_state().num_pages, 3);
  pass(seconds(1));
  EXPECT_EQ(pool_->hold_state().num_pages, 0);
  EXPECT_EQ(pool_->hold_state().num_holds, 0);
  EXPECT_EQ(pool_->num_available(), 8);
  EXPECT_EQ(found("abc"), 3) << "it is cached as any other prefix";
  cache("rstuvwxy");
  EXPECT_EQ(found("abc"), 0);
  EXPECT_EQ(pool_->hold_state().num_broken, 0);
}

TEST_F(CacheHold, OfOneChainTheLongestTimeCounts) {
  make(8, 0);
  cache("abc", seconds(10));
  cache("abc", seconds(30));
  cache("abc", seconds(20));
  EXPECT_EQ(pool_->hold_state().num_holds, 1);
  pass(seconds(29));
  EXPECT_EQ(pool_->hold_state().num_pages, 3);
  pass(seconds(1));
  EXPECT_EQ(pool_->hold_state().num_pages, 0);
}

// Turns of one conversation: their common pages are counted once, and the later hold keeps them.
TEST_F(CacheHold, AConversationThatGoesOnIsHeldByItsLastTurn) {
  make(8, 0);
  cache("ab", seconds(10));
  EXPECT_EQ(cache("abcd", seconds(20)), 4);
  EXPECT_EQ(pool_->hold_state().num_holds, 2);
  EXPECT_EQ(pool_->hold_state().num_pages, 4);
  pass(seconds(10));
  EXPECT_EQ(pool_->hold_state().num_holds, 1);
  EXPECT_EQ(pool_->hold_state().num_pages, 4);
  cache("wxyz");
  EXPECT_EQ(found("abcd"), 4);
}

TEST_F(CacheHold, MoreThanTheShareIsNotHeldAndTheBeginningIs) {
  make(8, 0, 0.5);
  EXPECT_EQ(cache("abc", seconds(10)), 3);
  EXPECT_EQ(cache("xyz", seconds(10)), 1);
  EXPECT_EQ(cache("rs", seconds(10)), 0);
  EXPECT_EQ(pool_->hold_state().num_pages, 4);
  EXPECT_EQ(pool_->hold_state().num_holds, 2);
  EXPECT_EQ(pool_->hold_state().num_cut, 2);
  EXPECT_EQ(cache("abc", seconds(20)), 3) << "what is held already takes no more room";
  cache("1234");
  EXPECT_EQ(found("abc"), 3);
  EXPECT_EQ(found("xyz"), 1);
  EXPECT_EQ(found("rs"), 0);
}

TEST_F(CacheHold, WithAHostTierHeldPagesMoveThereAndAreNotLost) {
  make(4, 4);
  cache("abc", seconds(10));
  EXPECT_EQ(pool_->num_available(), 4) << "the host has room for them";
  for (const char* others : {"mnop", "qrst", "uvwx"}) {
    cache(others);
    EXPECT_EQ(found("abc"), 3);
  }
  EXPECT_EQ(pool_->num_host_cached(), 4);
  BlockTable table;
  EXPECT_EQ(acquire_all(*pool_, "dense|", tokens_of("abc"), table), 3);
}

TEST_F(CacheHold, HeldPagesThatTheHostHasNoRoomForStay) {
  make(4, 2);
  cache("ab", seconds(10));
  cache("wx", seconds(10));
  EXPECT_EQ(pool_->num_available(), 2) << "two may go to the host";
  BlockTable table;
  EXPECT_FALSE(pool_->allocate(table, 3));
  ASSERT_TRUE(pool_->allocate(table, 2));
  EXPECT_EQ(found("ab") + found("wx"), 4);
  EXPECT_EQ(pool_->num_available(), 0);
  table.clear();
  pool_->check_integrity({});
}

// A device full of held pages and a host full of others: each that comes in goes where one goes
// out.
TEST_F(CacheHold, HeldPagesSwapWithThoseThatComeIn) {
  make(40, 40);
  std::string first;
  std::string second;
  for (int i = 0; i < 39; ++i) {
    first.push_back(static_cast<char>('0' + i));
    second.push_back(static_cast<char>('0' + (i + 1) % 39));
  }
  cache(first);
  EXPECT_EQ(cache(second, seconds(10)), 39);
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(cache(round % 2 == 0 ? first : second), 0);
    EXPECT_EQ(found(first), 39);
    EXPECT_EQ(found(second), 39);
  }
}

TEST_F(CacheHold, OnePageIsEnoughToSwapThrough) {
  make(4, 4);
  cache("abcd");
  cache("xyz", seconds(10));
  cache("m");
  EXPECT_EQ(pool_->num_host_cached(), 4);
  EXPECT_EQ(cache("abcd"), 0);
  EXPECT_EQ(found("abcd"), 4);
  EXPECT_EQ(found("xyz"), 3);
  EXPECT_EQ(found("m"), 0) << "it made the room";
}

TEST_F(CacheHold, WithoutOneNothingMovesAndNothingIsLost) {
  make(4, 4);
  cache("abcd");
  cache("wxyz", seconds(10));
  PrefixMatch match;
  pool_->refresh("dense|", tokens_of("abcd"), match);
  BlockTable table;
  EXPECT_FALSE(pool_->acquire(match, 4, table));
  pool_->check_integrity({});
  EXPECT_EQ(pool_->num_available(), 4);
  EXPECT_EQ(found("abcd"), 4);
  ASSERT_TRUE(pool_->acquire(match, 3, table));
  EXPECT_EQ(found("wxyz"), 4);
}

TEST_F(CacheHold, APromptThatDoesNotFitBesideThemBreaksTheHoldThatEndsFirst) {
  make(8, 0);
  cache("ab", seconds(30));
  cache("mn", seconds(10));
  cache("xy", seconds(20));
  make_way_for("", 2);
  EXPECT_EQ(pool_->hold_state().num_broken, 0) << "it fits";
  make_way_for("", 3);
  EXPECT_EQ(pool_->hold_state().num_broken, 1);
  EXPECT_EQ(pool_->num_available(), 4);
  cache("rstu");
  EXPECT_EQ(found("ab"), 2);
  EXPECT_EQ(found("mn"), 0);
  EXPECT_EQ(found("xy"), 2);
  make_way_for("", 9);
  EXPECT_EQ(pool_->hold_state().num_broken, 1) << "it never fits";
  make_way_for("", 8);
  EXPECT_EQ(pool_->hold_state().num_broken, 3);
}

// The conversation goes on: its own held pages are part of what it needs.
TEST_F(CacheHold, ThePagesItBeginsWithAreNotInItsWay) {
  make(8, 0);
  cache("abcde", seconds(10));
  make_way_for("abcde", 8);
  EXPECT_EQ(pool_->hold_state().num_broken, 0);
  PrefixMatch match;
  pool_->refresh("dense|", tokens_of("abcde"), match);
  EXPECT_EQ(pool_->num_needed(match, 5), 0) << "they could not be had before either";
  BlockTable table;
  ASSERT_TRUE(pool_->acquire(match, 5, table));
  EXPECT_TRUE(pool_->allocate(table, 3));
  EXPECT_EQ(leave("abcdefgh", table, seconds(10)), 8);
}

// Two computed the same prompt; the first has left its pages in the cache, where others count on
// them, and the second holds copies.
TEST_F(CacheHold, PagesThatOthersCountOnAreNotHeld) {
  make(8, 0);
  BlockTable first;
  BlockTable second;
  ASSERT_TRUE(pool_->allocate(first, 3));
  ASSERT_TRUE(pool_->allocate(second, 3));
  pool_->insert("dense|", tokens_of("abc"), first, 3);
  first.clear();
  EXPECT_EQ(pool_->num_available(), 5);
  pool_->insert("dense|", tokens_of("abc"), second, 3);
  EXPECT_EQ(pool_->hold(second, now_ + seconds(10), 1), 1);
  EXPECT_EQ(pool_->num_available(), 4);
  EXPECT_EQ(pool_->hold(second, now_ + seconds(10), 2), 3);
  EXPECT_EQ(pool_->num_available(), 2);
  second.clear();
  EXPECT_EQ(pool_->num_available(), 5);
  pool_->check_integrity({});
}

}  // namespace
}  // namespace pbserve::engine
