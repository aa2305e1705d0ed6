// The host tier of the KV cache: what moves there and back, who has to wait, and random operations
// whose copies run as late as they may. PBSERVE_TEST_SEED=<seed> replays a failure of those.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "tests/engine/pool_pages.h"

namespace pbserve::engine {
namespace {

const KvCacheShape kShape{
    .num_layers = 2, .num_kv_heads = 2, .head_dim = 2, .dtype = kernels::DType::kF32};

// A pool with its stream. Freed and evicted pages are poisoned.
struct TieredPool {
  TieredPool(int64_t num_pages, int64_t num_host_pages, CopyTiming copies = CopyTiming::kAtOnce,
             double max_held_share = 0.5)
      : stream(*kernels::Stream::create({}, 1)),
        pool(*KvCachePool::create(stream, kShape,
                                  {.num_pages = num_pages,
                                   .num_host_pages = num_host_pages,
                                   .freed_pages = FreedPages::kPoison,
                                   .copies = copies,
                                   .max_held_share = max_held_share})) {}
  KvCachePool* operator->() { return pool.get(); }
  KvCachePool& operator*() { return *pool; }

  // Leaves pages of a prompt in the cache, page i filled with `first` + i.
  void cache(const std::string& letters, float first) {
    BlockTable table;
    ASSERT_TRUE(pool->allocate(table, static_cast<int32_t>(letters.size())));
    for (int32_t i = 0; i < table.num_pages(); ++i) {
      fill(*pool, table.page(i), first + static_cast<float>(i));
    }
    pool->insert("dense", tokens_of(letters), table, table.num_pages());
    table.clear();
    pool->check_integrity({});
  }
  void expect_pages(const BlockTable& table, float first) {
    for (int32_t i = 0; i < table.num_pages(); ++i) {
      for (std::span<const float> part : parts_of(*pool, table.page(i), kShape.num_layers)) {
        EXPECT_EQ(part[0], first + static_cast<float>(i)) << "page " << i;
        EXPECT_EQ(part.back(), first + static_cast<float>(i)) << "page " << i;
      }
    }
  }

  kernels::Stream stream;
  std::unique_ptr<KvCachePool> pool;
};

TEST(HostTier, AnEvictedPrefixComesBackWithItsContent) {
  TieredPool pool(4, 8);
  pool.cache("abc", 1);
  pool.cache("wxyz", 10);
  EXPECT_EQ(pool->num_host_cached(), 3);
  EXPECT_EQ(num_found(*pool, "dense", "abcd"), 3);
  BlockTable table;
  EXPECT_EQ(acquire_all(*pool, "dense", tokens_of("abcd"), table), 3);
  EXPECT_TRUE(pool->is_loaded(table));
  pool.expect_pages(table, 1);
  EXPECT_EQ(pool->num_host_cached(), 3) << "pages of the other prompt made room";
  EXPECT_EQ(num_found(*pool, "dense", "wxyz"), 4);
  pool->check_integrity(std::vector<const BlockTable*>{&table});
  const TierCounters counters = pool->counters();
  EXPECT_EQ(counters.num_host_hits, 3);
  EXPECT_EQ(counters.num_device_hits, 0);
  EXPECT_EQ(counters.num_to_host, 6);
  EXPECT_EQ(counters.num_to_device, 3);
  EXPECT_EQ(counters.num_dropped, 0);
}

TEST(HostTier, WithoutOneAnEvictedPrefixIsLost) {
  TieredPool pool(4, 0);
  pool.cache("abc", 1);
  pool.cache("wxyz", 10);
  EXPECT_EQ(num_found(*pool, "dense", "abcd"), 0);
  EXPECT_EQ(pool->counters().num_dropped, 3);
}

TEST(HostTier, TheLeastRecentlyUsedPageMakesRoom) {
  TieredPool pool(3, 4);
  pool.cache("abc", 1);
  pool.cache("def", 10);
  pool.cache("ghi", 20);  // of six evicted pages the host keeps four
  EXPECT_EQ(num_found(*pool, "dense", "abc"), 1);
  EXPECT_EQ(num_found(*pool, "dense", "def"), 3);
  EXPECT_EQ(pool->counters().num_dropped, 2);
}

TEST(HostTier, AllOrNothing) {
  TieredPool pool(4, 4);
  pool.cache("abcd", 1);
  BlockTable other;
  ASSERT_TRUE(pool->allocate(other, 2));
  PrefixMatch match;
  pool->refresh("dense", tokens_of("abcd"), match);
  EXPECT_EQ(match.num_pages(), 4);
  EXPECT_EQ(pool->num_needed(match, 4), 4);
  EXPECT_EQ(pool->num_needed(match, 2), 2);
  EXPECT_EQ(pool->num_available(), 2);
  BlockTable table;
  EXPECT_FALSE(pool->acquire(match, 4, table));
  EXPECT_EQ(table.num_pages(), 0);
  EXPECT_EQ(pool->num_available(), 2);
  EXPECT_TRUE(pool->acquire(match, 2, table));
  pool.expect_pages(table, 1);
  EXPECT_EQ(pool->num_available(), 0);
  BlockTable second;
  EXPECT_EQ(pool->num_needed(match, 2), 0) << "another request holds them";
  EXPECT_TRUE(pool->acquire(match, 2, second));
  pool->check_integrity(std::vector<const BlockTable*>{&table, &other, &second});
}

// A full device and a full host: every page that comes in goes where one goes out.
TEST(HostTier, FullTiersSwap) {
  TieredPool pool(64, 64);
  std::string first;
  std::string second;
  for (int i = 0; i < 60; ++i) {
    first.push_back(static_cast<char>('0' + i));
    second.push_back(static_cast<char>('0' + (i + 1) % 60));
  }
  pool.cache(first, 100);
  pool.cache(second, 200);
  for (int round = 0; round < 4; ++round) {
    BlockTable table;
    EXPECT_EQ(acquire_all(*pool, "dense", tokens_of(round % 2 == 0 ? first : second), table), 60);
    pool.expect_pages(table, round % 2 == 0 ? 100 : 200);
    table.clear();
    pool->check_integrity({});
  }
  EXPECT_EQ(pool->counters().num_dropped, 0);
}

TEST(HostTier, PagesOfBothTiersAreCountedBySalt) {
  TieredPool pool(8, 4);
  const auto cache_for = [&](const char* root, const std::string& letters) {
    BlockTable table;
    ASSERT_TRUE(pool->allocate(table, static_cast<int32_t>(letters.size())));
    pool->insert(root, tokens_of(letters), table, table.num_pages());
    table.clear();
    pool->check_integrity({});
  };
  cache_for("dense|one", "ab");
  cache_for("pbs|one", "abc");
  cache_for("dense|two", "a");
  EXPECT_EQ(pool->salts().num_salts(), 2);
  EXPECT_EQ(pool->salts().num_largest(), 5) << "dense and sparse pages of one tenant";
  cache_for("dense|", "stuvwxyz");
  EXPECT_EQ(pool->salts().num_salts(), 3) << "no salt is one, and the host counts";
  EXPECT_EQ(pool->salts().num_largest(), 8);
  cache_for("dense|three", "12345678");
  EXPECT_EQ(pool->salts().num_salts(), 2) << "what was dropped does not";
  EXPECT_EQ(pool->salts().num_largest(), 8);
}

// ---- copies that take their time ----

TEST(HostTier, APageIsHandedOutWhileItIsBeingCopiedAway) {
  TieredPool pool(2, 4, CopyTiming::kDeferred);
  pool.cache("ab", 1);
  BlockTable table;
  ASSERT_TRUE(pool->allocate(table, 2, Handover::kLater));
  EXPECT_FALSE(pool->is_loaded(table));
  EXPECT_EQ(tile(pool->layer(0).k, 0)[0], 1) << "its content is still there";
  pool->copies().run_next_to_host();
  EXPECT_TRUE(pool->is_loaded(table));
  EXPECT_TRUE(is_poisoned(*pool, 0)) << "a read of what was evicted shows";
  EXPECT_EQ(num_found(*pool, "dense", "ab"), 2);
}

TEST(HostTier, PagesForAStepAtOnceHaveBeenCopiedAway) {
  TieredPool pool(2, 4, CopyTiming::kDeferred);
  pool.cache("ab", 1);
  BlockTable table;
  ASSERT_TRUE(pool->allocate(table, 2));
  EXPECT_TRUE(is_poisoned(*pool, 0));
  EXPECT_TRUE(is_poisoned(*pool, 1));
}

TEST(HostTier, ARequestWaitsForItsPages) {
  TieredPool pool(4, 8, CopyTiming::kDeferred);
  pool.cache("ab", 1);
  pool.cache("wxyz", 10);
  BlockTable table;
  EXPECT_EQ(acquire_all(*pool, "dense", tokens_of("ab"), table), 2);
  EXPECT_FALSE(pool->is_loaded(table));
  BlockTable sharer;  // the pages are on the device by name, and no more loaded for it
  EXPECT_EQ(acquire_all(*pool, "dense", tokens_of("ab"), sharer), 2);
  EXPECT_FALSE(pool->is_loaded(sharer));
  pool->copies().run_next_to_device();
  EXPECT_TRUE(pool->is_loaded(table));
  EXPECT_TRUE(pool->is_loaded(sharer));
  pool.expect_pages(table, 1);
  EXPECT_EQ(num_found(*pool, "dense", "wxyz"), 4);
}

TEST(HostTier, StepsCanWaitInstead) {
  TieredPool pool(4, 8, CopyTiming::kDeferred);
  pool.cache("ab", 1);
  pool.cache("wxyz", 10);
  BlockTable table;
  EXPECT_EQ(acquire_all(*pool, "dense", tokens_of("ab"), table), 2);
  pool->hold_back_steps(table);
  EXPECT_TRUE(pool->is_loaded(table));
  pool.expect_pages(table, 1);
}

TEST(HostTier, ACancelledLoadLeavesAPageThatCanLeaveAgain) {
  TieredPool pool(2, 4, CopyTiming::kDeferred);
  pool.cache("ab", 1);
  pool.cache("wx", 10);
  {
    BlockTable table;
    EXPECT_EQ(acquire_all(*pool, "dense", tokens_of("ab"), table), 2);
  }  // nothing has come yet
  pool.cache("yz", 20);
  BlockTable table;
  EXPECT_EQ(acquire_all(*pool, "dense", tokens_of("ab"), table), 2);
  pool->hold_back_steps(table);
  pool.expect_pages(table, 1);
}

// A stream that grows does not stand behind a long prompt's pages: some are always free.
TEST(HostTier, PagesAreKeptForStreamsThatGrow) {
  TieredPool pool(64, 64, CopyTiming::kDeferred);
  std::string letters;
  for (int i = 0; i < 64; ++i) letters.push_back(static_cast<char>('0' + i));
  pool.cache(letters, 1);
  BlockTable prompt;
  ASSERT_TRUE(pool->allocate(prompt, 32, Handover::kLater));
  EXPECT_GE(pool->num_free(), 4);
  pool->copies().run_next_to_host();  // a batch, of the three that are leaving
  EXPECT_FALSE(pool->is_loaded(prompt));
  BlockTable stream;
  ASSERT_TRUE(pool->allocate(stream, 1));
  EXPECT_FALSE(pool->is_loaded(prompt)) << "nothing had to be waited for";
}

// ---- random operations ----

// A prefix is one letter for the root and one for each page. Pages are written, and read, only when
// the pool says so; copies run at random, or when something waits. Some prefixes are held.
class TierModel {
 public:
  TierModel(uint64_t seed, int64_t num_pages, int64_t num_host_pages)
      : random_(seed),
        has_host_(num_host_pages > 0),
        pool_(num_pages, num_host_pages, CopyTiming::kDeferred, 0.8) {}

  void run(int num_operations) {
    for (int op = 0; op < num_operations && !::testing::Test::HasFailure(); ++op) {
      SCOPED_TRACE("operation " + std::to_string(op));
      step();
      for (auto& sequence : sequences_) use(*sequence);
      std::vector<const BlockTable*> tables;
      for (const auto& sequence : sequences_) tables.push_back(&sequence->table);
      pool_->check_integrity(tables);
      check_held();
    }
  }
  int32_t num_held_checks() const { return num_held_checks_; }
  TierCounters counters() { return pool_->counters(); }

 private:
  struct Sequence {
    std::string name;
    BlockTable table;
    int32_t num_written = 0;  // pages that hold what they should

    std::string root() const { return name.substr(0, 1); }
    std::vector<int32_t> tokens() const { return tokens_of(name.substr(1)); }
    float stamp(int32_t page_idx) const {
      return static_cast<float>(std::hash<std::string>()(name.substr(0, page_idx + 2)) % (1 << 24));
    }
  };

  int32_t draw(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  void step() {
    pool_->expire_holds(now_ += std::chrono::seconds(1));
    std::erase_if(held_, [&](const auto& held) { return held.second <= now_; });
    const int32_t choice = draw(0, 12);
    if (choice == 0 && has_host_) return pool_->copies().run_next_to_host();
    if (choice == 1 && has_host_) return pool_->copies().run_next_to_device();
    if (sequences_.empty() || (choice <= 4 && sequences_.size() < 6)) return start();
    const size_t index = static_cast<size_t>(draw(0, static_cast<int32_t>(sequences_.size()) - 1));
    Sequence& sequence = *sequences_[index];
    if (choice <= 7) return allocate(sequence);
    if (choice == 8) return insert(sequence);
    if (choice == 12) return hold(sequence);
    if (choice == 9) {
      sequence.table.truncate(draw(0, sequence.table.num_pages()));
      sequence.num_written = std::min(sequence.num_written, sequence.table.num_pages());
      return;
    }
    if (draw(0, 1) == 0) insert(sequence);
    sequences_.erase(sequences_.begin() + static_cast<int64_t>(index));
  }

  void start() {
    auto sequence = std::make_unique<Sequence>();
    sequence->name = draw(0, 3) == 0 ? "S" : "R";
    for (int32_t i = draw(1, 8); i > 0; --i) sequence->name.push_back(draw(0, 3) == 0 ? 'b' : 'a');
    PrefixMatch match;
    pool_->refresh(sequence->root(), sequence->tokens(), match);
    const int32_t num_pages = draw(0, match.num_pages());
    const int32_t needed = pool_->num_needed(match, num_pages);
    const int32_t available = pool_->num_available();
    const bool is_taken = pool_->acquire(match, num_pages, sequence->table);
    // Where held pages leave none to swap through, one page more is needed.
    if (needed != available || pool_->hold_state().num_pages == 0) {
      EXPECT_EQ(is_taken, needed <= available);
    }
    EXPECT_EQ(pool_->num_available(), is_taken ? available - needed : available);
    sequence->num_written = sequence->table.num_pages();
    sequences_.push_back(std::move(sequence));
  }

  void allocate(Sequence& sequence) {
    const int32_t num_pages_max = static_cast<int32_t>(sequence.name.size()) - 1;
    const int32_t num_more = draw(0, num_pages_max - sequence.table.num_pages());
    const int32_t available = pool_->num_available();
    const bool is_now = pool_->is_loaded(sequence.table) && draw(0, 1) == 0;
    const bool is_taken =
        pool_->allocate(sequence.table, num_more, is_now ? Handover::kNow : Handover::kLater);
    EXPECT_EQ(is_taken, num_more <= available);
    EXPECT_TRUE(!is_now || pool_->is_loaded(sequence.table));
  }

  // Reads what should be there and writes what is missing, as a step would.
  void use(Sequence& sequence) {
    if (!pool_->is_loaded(sequence.table)) return;
    for (int32_t i = 0; i < sequence.table.num_pages(); ++i) {
      const int32_t page = sequence.table.page(i);
      if (i >= sequence.num_written) fill(*pool_, page, sequence.stamp(i));
      for (std::span<const float> part : parts_of(*pool_, page, kShape.num_layers)) {
        ASSERT_EQ(part[0], sequence.stamp(i)) << "page " << page << ", place " << i;
      }
    }
    sequence.num_written = sequence.table.num_pages();
  }

  void insert(Sequence& sequence) {
    pool_->insert(sequence.root(), sequence.tokens(), sequence.table,
                  draw(0, sequence.num_written));
  }

  void hold(Sequence& sequence) {
    insert(sequence);
    const int32_t available = pool_->num_available();
    const int32_t num_spare = draw(0, 3);
    const Clock::time_point until = now_ + std::chrono::seconds(draw(1, 40));
    const int32_t count = pool_->hold(sequence.table, until, num_spare);
    EXPECT_GE(pool_->num_available(), available - num_spare);
    held_.emplace_back(sequence.name.substr(0, count + 1), until);
  }

  void check_held() {
    for (const auto& [name, until] : held_) {
      EXPECT_EQ(num_found(*pool_, name.substr(0, 1), name.substr(1)), std::ssize(name) - 1);
      ++num_held_checks_;
    }
  }

  std::mt19937_64 random_;
  bool has_host_;
  Clock::time_point now_;
  std::vector<std::pair<std::string, Clock::time_point>> held_;
  int32_t num_held_checks_ = 0;
  TieredPool pool_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST(HostTier, RandomOperationsKeepEveryPagesContent) {
  const char* wish = std::getenv("PBSERVE_TEST_SEED");
  const uint64_t seed = wish != nullptr ? std::stoull(wish) : std::random_device()();
  std::cout << "PBSERVE_TEST_SEED=" << seed << "\n";
  for (const auto& [num_pages, num_host_pages] :
       {std::pair{5, 3}, {16, 8}, {16, 0}, {12, 40}, {40, 40}}) {
    TierModel model(seed, num_pages, num_host_pages);
    model.run(8000);
    const TierCounters counters = model.counters();
    EXPECT_GT(counters.num_device_hits, 50) << num_pages;
    EXPECT_GT(model.num_held_checks(), 500);
    if (num_pages == 40 || num_host_pages == 0) continue;  // nearly everything has its place
    EXPECT_GT(counters.num_host_hits, 50) << num_pages;
    EXPECT_GT(counters.num_to_host, 50) << num_pages;
  }
}

}  // namespace
}  // namespace pbserve::engine
