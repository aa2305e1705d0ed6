// PrefixCache alone: chains, exact keys, pins, order of eviction.
#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include "kernels/ops/rope.h"

namespace pbserve::engine {
namespace {

using Pages = std::vector<int32_t>;

// One full page of tokens for each letter.
std::vector<int32_t> tokens_of(const std::string& letters) {
  std::vector<int32_t> tokens;
  for (const char letter : letters) tokens.insert(tokens.end(), kernels::kPageSize, letter);
  return tokens;
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  // Inserts as one sequence would, and gives up its pins unless told otherwise.
  Pages insert(const std::string& letters, const Pages& pages, const std::string& root = "dense") {
    PrefixCache::Cursor cursor;
    return cache_.insert(root, tokens_of(letters), pages, cursor);
  }

  void insert_unpinned(const std::string& letters, const Pages& pages) {
    const Pages added = insert(letters, pages);
    for (size_t i = added.size(); i-- > 0;) cache_.unpin(added[i]);
  }

  Pages find(const std::string& letters, const std::string& root = "dense") {
    return cache_.find(root, tokens_of(letters));
  }

  // One bucket: every key collides with every other.
  PrefixCache cache_{16, 1};
};

TEST_F(PrefixCacheTest, FindsTheLongestChain) {
  EXPECT_EQ(insert("abc", {0, 1, 2}), (Pages{0, 1, 2}));
  EXPECT_EQ(find("abc"), (Pages{0, 1, 2}));
  EXPECT_EQ(find("abcd"), (Pages{0, 1, 2}));
  EXPECT_EQ(find("abx"), (Pages{0, 1}));
  EXPECT_EQ(find("bc"), Pages{});  // the right tokens at the wrong place
  EXPECT_EQ(find(""), Pages{});

  std::vector<int32_t> tokens = tokens_of("ab");
  tokens.pop_back();
  EXPECT_EQ(cache_.find("dense", tokens), Pages{0}) << "a page that is not full cannot match";
}

TEST_F(PrefixCacheTest, OneDifferentTokenIsAnotherPage) {
  insert("a", {0});
  for (const int place : {0, 64, kernels::kPageSize - 1}) {
    std::vector<int32_t> tokens = tokens_of("a");
    ++tokens[place];
    EXPECT_EQ(cache_.find("dense", tokens), Pages{}) << "token " << place;
  }
}

TEST_F(PrefixCacheTest, RootsNeverMix) {
  insert("ab", {0, 1}, "dense|");
  EXPECT_EQ(find("ab", "pbs top_p 0.9|"), Pages{});
  EXPECT_EQ(find("ab", "dense|salt"), Pages{});
  EXPECT_EQ(insert("ab", {2, 3}, "dense|salt"), (Pages{2, 3}));
  EXPECT_EQ(find("ab", "dense|"), (Pages{0, 1}));
  EXPECT_EQ(find("ab", "dense|salt"), (Pages{2, 3}));
}

TEST_F(PrefixCacheTest, KeepsTheFirstCopyAndExtendsItsChain) {
  insert("ab", {0, 1});
  EXPECT_EQ(insert("abc", {5, 6, 7}), Pages{7});
  EXPECT_EQ(find("abc"), (Pages{0, 1, 7}));
}

TEST_F(PrefixCacheTest, EvictsTheOldestLeafFirst) {
  insert_unpinned("ab", {0, 1});
  insert_unpinned("ac", {9, 2});  // 9 is a copy of 0; 2 is a second child of 0
  insert_unpinned("x", {3});
  EXPECT_EQ(cache_.num_evictable(), 4);
  EXPECT_EQ(cache_.evict(), 1);
  EXPECT_EQ(find("ab"), Pages{0});
  EXPECT_EQ(cache_.evict(), 2);
  EXPECT_EQ(cache_.evict(), 0);
  EXPECT_EQ(cache_.evict(), 3);
  EXPECT_EQ(cache_.num_entries(), 0);
  EXPECT_EQ(find("x"), Pages{});
}

TEST_F(PrefixCacheTest, UseMakesAPageRecent) {
  insert_unpinned("a", {0});
  insert_unpinned("b", {1});
  cache_.pin(0);
  cache_.unpin(0);
  EXPECT_EQ(cache_.evict(), 1);
  EXPECT_EQ(cache_.evict(), 0);
}

TEST_F(PrefixCacheTest, AHeldPageKeepsItsAncestors) {
  insert_unpinned("ab", {0, 1});
  insert("abc", {8, 9, 2});  // its holder holds 2, and copies of 0 and 1
  EXPECT_EQ(cache_.num_evictable(), 0);
  std::vector<int32_t> num_holders(16, 0);
  num_holders[2] = 1;
  cache_.check_integrity(num_holders);
  cache_.unpin(2);
  EXPECT_EQ(cache_.num_evictable(), 3);
  EXPECT_EQ(cache_.evict(), 2);
  EXPECT_EQ(cache_.evict(), 1);
  EXPECT_EQ(cache_.evict(), 0);
}

TEST_F(PrefixCacheTest, ACursorGoesOnWhereItStopped) {
  PrefixCache::Cursor cursor;
  const Pages pages{4, 5, 6};
  const std::vector<int32_t> tokens = tokens_of("abc");
  EXPECT_EQ(cache_.insert("dense", tokens, std::span(pages).first(1), cursor), Pages{4});
  EXPECT_EQ(cache_.insert("dense", tokens, std::span(pages).first(1), cursor), Pages{});
  EXPECT_EQ(cache_.insert("dense", tokens, pages, cursor), (Pages{5, 6}));
  EXPECT_EQ(cursor.num_pages, 3);
  EXPECT_EQ(find("abc"), pages);
}

TEST_F(PrefixCacheTest, AStaleCursorStartsAgain) {
  insert_unpinned("ab", {0, 1});
  PrefixCache::Cursor cursor;
  const Pages pages{4, 5, 6};
  const std::vector<int32_t> tokens = tokens_of("abc");
  EXPECT_EQ(cache_.insert("dense", tokens, std::span(pages).first(2), cursor), Pages{});
  EXPECT_EQ(cursor.page, 1);
  cache_.evict();
  cache_.evict();
  insert_unpinned("z", {1});  // page 1 is an entry again, of something else
  EXPECT_EQ(cache_.insert("dense", tokens, pages, cursor), pages);
  EXPECT_EQ(find("abc"), pages);
  EXPECT_EQ(find("zc"), Pages{1});
}

TEST_F(PrefixCacheTest, RootsLeaveWithTheirLastPage) {
  std::vector<int32_t> no_holders(16, 0);
  for (int i = 0; i < 100; ++i) {
    PrefixCache::Cursor cursor;
    const Pages page{i % 16};
    cache_.insert("salt " + std::to_string(i), tokens_of("a"), page, cursor);
    cache_.unpin(page[0]);
    cache_.check_integrity(no_holders);  // counts the roots
    EXPECT_EQ(cache_.evict(), page[0]);
  }
}

// Names blocks 1, 2, 3... and writes down what it is told.
class Notes : public CacheListener {
 public:
  uint64_t on_stored(std::string_view root, uint64_t parent, std::span<const int32_t> tokens,
                     CacheTier tier) override {
    EXPECT_EQ(tier, CacheTier::kDevice);
    EXPECT_EQ(tokens.size(), static_cast<size_t>(kernels::kPageSize));
    const std::string under = std::string(root) + " " + std::to_string(parent);
    lines.push_back(std::string(1, static_cast<char>(tokens[0])) + " under " + under);
    return ++last_;
  }
  void on_removed(std::string_view root, uint64_t hash, CacheTier) override {
    lines.push_back("- " + std::string(root) + " " + std::to_string(hash));
  }

  std::vector<std::string> lines;

 private:
  uint64_t last_ = 0;
};

TEST_F(PrefixCacheTest, TellsItsListenerOfEveryPage) {
  Notes notes;
  cache_.set_listener(&notes);
  insert_unpinned("ab", {0, 1});
  insert_unpinned("abc", {2, 3, 4});  // copies of a and b stay private
  insert("a", {5}, "pbs");
  while (cache_.num_evictable() > 0) cache_.evict();
  EXPECT_EQ(notes.lines,
            (std::vector<std::string>{"a under dense 0", "b under dense 1", "c under dense 2",
                                      "a under pbs 0", "- dense 3", "- dense 2", "- dense 1"}));
}

using PrefixCacheDeathTest = PrefixCacheTest;

TEST_F(PrefixCacheDeathTest, MisuseDies) {
  EXPECT_DEATH(cache_.evict(), "no cached page to evict");
  EXPECT_DEATH(cache_.pin(3), "not cached");
  EXPECT_DEATH(insert("a", {0, 1}), "not full");
  insert_unpinned("a", {0});
  EXPECT_DEATH(cache_.set_listener(nullptr), "cached before their listener");
  EXPECT_DEATH(cache_.unpin(0), "unpinned twice");
  EXPECT_DEATH(insert("b", {0}), "page cached twice");
}

}  // namespace
}  // namespace pbserve::engine
