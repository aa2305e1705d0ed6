// KvCachePool: memory layout, states of a page, and random operations against a simple model.
// PBSERVE_TEST_SEED=<seed> replays a failure of the random test.
#include "engine/kv_cache_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <string>

#include "tests/engine/pool_pages.h"

namespace pbserve::engine {
namespace {

constexpr int64_t kNumLayers = 2;
const KvCacheShape kShape{
    .num_layers = kNumLayers, .num_kv_heads = 2, .head_dim = 2, .dtype = kernels::DType::kF32};

std::unique_ptr<KvCachePool> make_pool(int64_t num_pages) {
  auto pool = KvCachePool::create({}, kShape, num_pages, FreedPages::kPoison);
  EXPECT_TRUE(pool.ok()) << pool.status();
  return *std::move(pool);
}

TEST(KvCachePool, LayersAndPagesDoNotOverlap) {
  const auto pool = make_pool(3);
  EXPECT_EQ(kShape.page_bytes(), 2 * (2 * 2 * 128 * 2 * 4 + 2 * 2 * 2 * 4));
  float next = 0;
  for (int64_t layer = 0; layer < kNumLayers; ++layer) {
    for (const kernels::Tensor& half : {pool->layer(layer).k, pool->layer(layer).v}) {
      EXPECT_EQ(half.shape, (std::array<int64_t, 4>{3, 2, 128, 2}));
      for (int32_t page = 0; page < 3; ++page) std::ranges::fill(tile(half, page), next++);
    }
    for (const kernels::Tensor& moment : {pool->layer(layer).k_mean, pool->layer(layer).k_var}) {
      EXPECT_EQ(moment.shape, (std::array<int64_t, 4>{3, 2, 2}));
      for (int32_t page = 0; page < 3; ++page) std::ranges::fill(tile(moment, page), next++);
    }
  }
  next = 0;
  for (int64_t layer = 0; layer < kNumLayers; ++layer) {
    const models::KvPages pages = pool->layer(layer);
    for (const kernels::Tensor& part : {pages.k, pages.v, pages.k_mean, pages.k_var}) {
      for (int32_t page = 0; page < 3; ++page) {
        EXPECT_TRUE(std::ranges::all_of(tile(part, page), [&](float x) { return x == next; }));
        ++next;
      }
    }
  }
}

TEST(KvCachePool, AllocatesAllOrNothing) {
  const auto pool = make_pool(4);
  BlockTable first;
  BlockTable second;
  ASSERT_TRUE(pool->allocate(first, 3));
  EXPECT_FALSE(pool->allocate(second, 2));
  EXPECT_EQ(second.num_pages(), 0);
  EXPECT_EQ(pool->num_used(), 3);
  EXPECT_TRUE(pool->allocate(second, 1));
  EXPECT_EQ(pool->num_available(), 0);
  first.truncate(1);
  EXPECT_EQ(pool->num_available(), 2);
  pool->check_integrity(std::vector<const BlockTable*>{&first, &second});
}

TEST(KvCachePool, PagesFollowTheirTable) {
  const auto pool = make_pool(4);
  BlockTable first;
  ASSERT_TRUE(pool->allocate(first, 2));
  BlockTable second = std::move(first);
  EXPECT_EQ(first.num_pages(), 0);
  EXPECT_EQ(second.num_pages(), 2);
  ASSERT_TRUE(pool->allocate(first, 2));
  first = std::move(second);
  EXPECT_EQ(pool->num_used(), 2) << "the pages of the overwritten table are given back";
  first.clear();
  EXPECT_EQ(pool->num_used(), 0);
}

TEST(KvCachePool, FreedPagesArePoisonedAndCachedOnesKept) {
  const auto pool = make_pool(2);
  EXPECT_TRUE(is_poisoned(*pool, 0));
  BlockTable table;
  ASSERT_TRUE(pool->allocate(table, 2));
  fill(*pool, 0, 1.0f);
  fill(*pool, 1, 2.0f);
  pool->insert("dense", tokens_of("a"), table, 1);
  table.clear();
  EXPECT_EQ(tile(pool->layer(1).v, 0)[0], 1.0f);
  EXPECT_TRUE(is_poisoned(*pool, 1));
  EXPECT_EQ(pool->num_cached(), 1);
  ASSERT_TRUE(pool->allocate(table, 2));
  EXPECT_TRUE(is_poisoned(*pool, 0)) << "evicted";
}

TEST(KvCachePool, LookedUpPagesAreNotEvicted) {
  const auto pool = make_pool(3);
  BlockTable table;
  ASSERT_TRUE(pool->allocate(table, 2));
  pool->insert("dense", tokens_of("ab"), table, 2);
  table.clear();
  EXPECT_EQ(num_found(*pool, "dense", "abc"), 2);
  EXPECT_EQ(acquire_all(*pool, "dense", tokens_of("abc"), table), 2);
  EXPECT_EQ(pool->num_available(), 1);
  BlockTable other;
  EXPECT_FALSE(pool->allocate(other, 2));
  EXPECT_TRUE(pool->allocate(table, 1));
  EXPECT_EQ(table.num_pages(), 3);
}

TEST(KvCachePool, AClearedTableMayHoldOtherTokens) {
  const auto pool = make_pool(2);
  BlockTable table;
  for (const char* letters : {"a", "b"}) {
    ASSERT_TRUE(pool->allocate(table, 1));
    pool->insert("dense", tokens_of(letters), table, 1);
    table.clear();
  }
  EXPECT_EQ(num_found(*pool, "dense", "a"), 1);
  EXPECT_EQ(num_found(*pool, "dense", "b"), 1);
}

TEST(KvCachePool, RefusesSizesItCannotHold) {
  EXPECT_EQ(KvCachePool::create({}, kShape, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KvCachePool::create({}, kShape, int64_t{1} << 25).status().code(),
            absl::StatusCode::kInvalidArgument);
  const kernels::Device gpu{.kind = kernels::DeviceKind::kCuda, .index = 0};
  EXPECT_EQ(KvCachePool::create(gpu, kShape, 1, FreedPages::kPoison).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(KvCachePoolDeathTest, ALeakedPageDies) {
  EXPECT_DEATH(
      {
        auto pool = make_pool(1);
        BlockTable table;
        static_cast<void>(pool->allocate(table, 1));
        pool.reset();
      },
      "pages still held");
}

TEST(KvCachePoolDeathTest, IntegrityNoticesAForgottenHolder) {
  const auto pool = make_pool(2);
  BlockTable table;
  ASSERT_TRUE(pool->allocate(table, 1));
  EXPECT_DEATH(pool->check_integrity({}), "references to a page");
}

// What the pool should hold, computed anew from scratch wherever that is possible. A prefix is one
// letter for the root and one for each page; the cache is a map from prefixes to pages.
class PoolModel {
 public:
  PoolModel(uint64_t seed, int32_t num_pages)
      : random_(seed), num_pages_(num_pages), pool_(make_pool(num_pages)) {}

  void run(int num_operations) {
    for (op_ = 0; op_ < num_operations && !::testing::Test::HasFailure(); ++op_) {
      SCOPED_TRACE("operation " + std::to_string(op_));
      step();
      update_pins();
      compare();
    }
  }

  int64_t num_hits() const { return num_hits_; }
  int64_t num_evictions() const { return num_evictions_; }

 private:
  struct Sequence {
    std::string name;  // root and letters: names[0, i + 2) is the prefix of page i
    BlockTable table;
    std::string prefix(int32_t page_idx) const { return name.substr(0, page_idx + 2); }
    std::string root() const { return name.substr(0, 1); }
    std::vector<int32_t> tokens() const { return tokens_of(name.substr(1)); }
    int32_t num_pages_max() const { return static_cast<int32_t>(name.size()) - 1; }
  };

  // Pages that a chain made unpinned by one operation goes leaf first.
  using Age = std::pair<int, int>;  // operation, -length of the prefix

  int32_t draw(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  std::string draw_name() {
    std::string name(1, draw(0, 3) == 0 ? 'S' : 'R');
    for (int32_t i = draw(1, 8); i > 0; --i) name.push_back(draw(0, 2) == 0 ? 'b' : 'a');
    return name;
  }

  void step() {
    const int32_t choice = draw(0, 9);
    if (sequences_.empty() || (choice <= 1 && sequences_.size() < 8)) return start();
    const size_t index = draw(0, static_cast<int32_t>(sequences_.size()) - 1);
    Sequence& sequence = *sequences_[index];
    if (choice <= 4) return allocate(sequence);
    if (choice <= 6) return insert(sequence);
    if (choice == 7) return sequence.table.truncate(draw(0, sequence.table.num_pages()));
    if (choice == 8) {
      BlockTable moved = std::move(sequence.table);
      sequence.table = std::move(moved);
      return;
    }
    check_stamps(sequence);
    sequences_.erase(sequences_.begin() + static_cast<int64_t>(index));
  }

  void start() {
    sequences_.push_back(std::make_unique<Sequence>(Sequence{.name = draw_name(), .table = {}}));
    Sequence& sequence = *sequences_.back();
    const int32_t num_found =
        acquire_all(*pool_, sequence.root(), sequence.tokens(), sequence.table);
    EXPECT_EQ(num_found, num_found_in_model(sequence.name));
    EXPECT_EQ(num_found, sequence.table.num_pages());
    for (int32_t i = 0; i < num_found; ++i) {
      EXPECT_EQ(sequence.table.page(i), cached_.at(sequence.prefix(i)));
    }
    check_stamps(sequence);
    num_hits_ += num_found;
  }

  void allocate(Sequence& sequence) {
    const int32_t num_old = sequence.table.num_pages();
    const int32_t num_more = draw(0, sequence.num_pages_max() - num_old);
    const int32_t num_missing = num_more - num_free();
    const bool fits = num_missing <= static_cast<int32_t>(unpinned_.size());
    ASSERT_EQ(pool_->allocate(sequence.table, num_more), fits);
    if (!fits) return;
    for (int32_t i = 0; i < num_missing; ++i) evict_in_model();
    ASSERT_EQ(sequence.table.num_pages(), num_old + num_more);
    for (int32_t i = num_old; i < num_old + num_more; ++i) {
      const int32_t page = sequence.table.page(i);
      EXPECT_EQ(num_holders(page), 1) << "page " << page;
      EXPECT_FALSE(is_cached(page)) << "page " << page;
      EXPECT_TRUE(is_poisoned(*pool_, page)) << "page " << page;
      fill(*pool_, page, stamp(sequence.prefix(i)));
    }
  }

  void insert(Sequence& sequence) {
    const int32_t num_pages = draw(0, sequence.table.num_pages());
    pool_->insert(sequence.root(), sequence.tokens(), sequence.table, num_pages);
    for (int32_t i = 0; i < num_pages; ++i) {
      cached_.try_emplace(sequence.prefix(i), sequence.table.page(i));
    }
  }

  void evict_in_model() {
    const auto oldest = std::ranges::min_element(
        unpinned_, {}, [](const auto& entry) -> const Age& { return entry.second; });
    cached_.erase(oldest->first);
    unpinned_.erase(oldest);
    ++num_evictions_;
  }

  void update_pins() {
    std::map<std::string, Age> unpinned;
    for (const auto& [prefix, page] : cached_) {
      if (is_pinned(prefix)) continue;
      const auto known = unpinned_.find(prefix);
      unpinned[prefix] =
          known != unpinned_.end() ? known->second : Age{op_, -static_cast<int>(prefix.size())};
    }
    unpinned_ = std::move(unpinned);
  }

  void compare() {
    std::vector<const BlockTable*> tables;
    for (const auto& sequence : sequences_) tables.push_back(&sequence->table);
    pool_->check_integrity(tables);
    EXPECT_EQ(pool_->num_used(), num_used());
    EXPECT_EQ(pool_->num_free(), num_free());
    EXPECT_EQ(pool_->num_available(), num_free() + static_cast<int32_t>(unpinned_.size()));
    const std::string name = draw_name();
    EXPECT_EQ(num_found(*pool_, name.substr(0, 1), name.substr(1)), num_found_in_model(name));
  }

  void check_stamps(const Sequence& sequence) {
    for (int32_t i = 0; i < sequence.table.num_pages(); ++i) {
      EXPECT_EQ(tile(pool_->layer(1).k, sequence.table.page(i))[0], stamp(sequence.prefix(i)));
    }
  }

  static float stamp(const std::string& prefix) {
    return static_cast<float>(std::hash<std::string>()(prefix) % (1 << 24));
  }

  int32_t num_found_in_model(const std::string& name) const {
    int32_t num_found = 0;
    while (cached_.contains(name.substr(0, num_found + 2)) &&
           num_found + 2 <= static_cast<int32_t>(name.size())) {
      ++num_found;
    }
    return num_found;
  }

  int32_t num_holders(int32_t page) const {
    int64_t count = 0;
    for (const auto& sequence : sequences_) {
      count += std::ranges::count(sequence->table.pages(), page);
    }
    return static_cast<int32_t>(count);
  }

  bool is_pinned(const std::string& prefix) const {
    return std::ranges::any_of(cached_, [&](const auto& entry) {
      return entry.first.starts_with(prefix) && num_holders(entry.second) > 0;
    });
  }

  bool is_cached(int32_t page) const {
    return std::ranges::any_of(cached_, [&](const auto& entry) { return entry.second == page; });
  }

  int32_t num_used() const {
    int32_t count = 0;
    for (int32_t page = 0; page < num_pages_; ++page) count += num_holders(page) > 0 ? 1 : 0;
    return count;
  }

  int32_t num_free() const {
    int32_t count = 0;
    for (int32_t page = 0; page < num_pages_; ++page) {
      count += num_holders(page) == 0 && !is_cached(page) ? 1 : 0;
    }
    return count;
  }

  std::mt19937_64 random_;
  int32_t num_pages_;
  std::unique_ptr<KvCachePool> pool_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::map<std::string, int32_t> cached_;
  std::map<std::string, Age> unpinned_;  // cached prefixes that may be evicted
  int op_ = 0;
  int64_t num_hits_ = 0;
  int64_t num_evictions_ = 0;
};

TEST(KvCachePool, RandomOperationsFollowTheModel) {
  const char* wish = std::getenv("PBSERVE_TEST_SEED");
  const uint64_t seed = wish != nullptr ? std::stoull(wish) : std::random_device()();
  std::cout << "PBSERVE_TEST_SEED=" << seed << "\n";
  for (const int32_t num_pages : {5, 16, 28}) {
    PoolModel model(seed, num_pages);
    model.run(3000);
    EXPECT_GT(model.num_hits(), 50) << num_pages << " pages";
    EXPECT_GT(model.num_evictions(), 10) << num_pages << " pages";
  }
}

}  // namespace
}  // namespace pbserve::engine
