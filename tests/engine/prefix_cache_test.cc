// PrefixCache alone: chains, exact keys, pins, tiers, order of eviction.
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
    return cache_.insert(root, tokens_of(letters), pages, cursor).pages;
  }

  void insert_unpinned(const std::string& letters, const Pages& pages) {
    const Pages added = insert(letters, pages);
    for (size_t i = added.size(); i-- > 0;) cache_.unpin(added[i]);
  }

  PrefixMatch match_of(const std::vector<int32_t>& tokens, const std::string& root = "dense") {
    PrefixMatch match;
    cache_.refresh(root, tokens, match);
    return match;
  }

  // The pages of a match on the device; those on the host as -1 - page.
  Pages pages_of(const PrefixMatch& match) {
    Pages pages;
    for (const EntryRef& ref : match.chain) {
      const Location at = cache_.location(ref.entry);
      pages.push_back(at.tier == Tier::kDevice ? at.page : -1 - at.page);
    }
    return pages;
  }

  Pages find(const std::string& letters, const std::string& root = "dense") {
    return pages_of(match_of(tokens_of(letters), root));
  }

  int32_t evict() { return cache_.evict(Tier::kDevice); }
  int32_t num_evictable() const { return cache_.num_evictable(Tier::kDevice); }

  // One bucket: every key collides with every other.
  PrefixCache cache_{16, 4, 1};
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
  EXPECT_EQ(pages_of(match_of(tokens)), Pages{0}) << "a page that is not full cannot match";
}

TEST_F(PrefixCacheTest, OneDifferentTokenIsAnotherPage) {
  insert("a", {0});
  for (const int place : {0, 64, kernels::kPageSize - 1}) {
    std::vector<int32_t> tokens = tokens_of("a");
    ++tokens[place];
    EXPECT_EQ(pages_of(match_of(tokens)), Pages{}) << "token " << place;
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
  EXPECT_EQ(num_evictable(), 4);
  EXPECT_EQ(evict(), 1);
  EXPECT_EQ(find("ab"), Pages{0});
  EXPECT_EQ(evict(), 2);
  EXPECT_EQ(evict(), 0);
  EXPECT_EQ(evict(), 3);
  EXPECT_EQ(cache_.num_entries(Tier::kDevice), 0);
  EXPECT_EQ(find("x"), Pages{});
}

TEST_F(PrefixCacheTest, UseMakesAPageRecent) {
  insert_unpinned("a", {0});
  insert_unpinned("b", {1});
  cache_.pin(match_of(tokens_of("a")).chain[0].entry);
  cache_.unpin(0);
  EXPECT_EQ(evict(), 1);
  EXPECT_EQ(evict(), 0);
}

TEST_F(PrefixCacheTest, AHeldPageKeepsItsAncestors) {
  insert_unpinned("ab", {0, 1});
  insert("abc", {8, 9, 2});  // its holder holds 2, and copies of 0 and 1
  EXPECT_EQ(num_evictable(), 0);
  std::vector<int32_t> num_holders(16, 0);
  num_holders[2] = 1;
  cache_.check_integrity(num_holders);
  cache_.unpin(2);
  EXPECT_EQ(num_evictable(), 3);
  EXPECT_EQ(evict(), 2);
  EXPECT_EQ(evict(), 1);
  EXPECT_EQ(evict(), 0);
}

TEST_F(PrefixCacheTest, ACursorGoesOnWhereItStopped) {
  PrefixCache::Cursor cursor;
  const Pages pages{4, 5, 6};
  const std::vector<int32_t> tokens = tokens_of("abc");
  EXPECT_EQ(cache_.insert("dense", tokens, std::span(pages).first(1), cursor).pages, Pages{4});
  EXPECT_EQ(cache_.insert("dense", tokens, std::span(pages).first(1), cursor).pages, Pages{});
  EXPECT_EQ(cache_.insert("dense", tokens, pages, cursor).pages, (Pages{5, 6}));
  EXPECT_EQ(cursor.num_pages, 3);
  EXPECT_EQ(find("abc"), pages);
}

TEST_F(PrefixCacheTest, AStaleCursorStartsAgain) {
  insert_unpinned("ab", {0, 1});
  PrefixCache::Cursor cursor;
  const Pages pages{4, 5, 6};
  const std::vector<int32_t> tokens = tokens_of("abc");
  EXPECT_EQ(cache_.insert("dense", tokens, std::span(pages).first(2), cursor).pages, Pages{});
  EXPECT_EQ(cursor.last.entry, match_of(tokens).chain[1].entry);
  evict();
  evict();
  insert_unpinned("z", {1});  // page 1 is an entry again, of something else
  EXPECT_EQ(cache_.insert("dense", tokens, pages, cursor).pages, pages);
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
    EXPECT_EQ(evict(), page[0]);
  }
}

// ---- what is known of a prompt ----

TEST_F(PrefixCacheTest, AMatchFollowsTheCache) {
  insert_unpinned("ab", {0, 1});
  const std::vector<int32_t> tokens = tokens_of("abcd");
  PrefixMatch match = match_of(tokens);
  EXPECT_EQ(pages_of(match), (Pages{0, 1}));
  insert_unpinned("abc", {0, 1, 2});
  cache_.refresh("dense", tokens, match);
  EXPECT_EQ(pages_of(match), (Pages{0, 1, 2}));
  EXPECT_EQ(evict(), 2);
  EXPECT_EQ(evict(), 1);
  insert_unpinned("ax", {0, 1});  // the entry of b has its page, and its id, taken
  cache_.refresh("dense", tokens, match);
  EXPECT_EQ(pages_of(match), Pages{0});
  EXPECT_EQ(evict(), 1);
  EXPECT_EQ(evict(), 0);
  cache_.refresh("dense", tokens, match);
  EXPECT_EQ(pages_of(match), Pages{});
}

// Finding E3: 32 prompts that wait on one book of 1M tokens.
TEST(PrefixMatchTest, WaitingPromptsCostOneHashATurn) {
  constexpr int32_t kNumPages = 8192;
  PrefixCache cache(kNumPages);
  std::vector<int32_t> book(size_t{kNumPages} * kernels::kPageSize);
  for (size_t i = 0; i < book.size(); ++i) book[i] = static_cast<int32_t>(i * 2654435761U >> 12);
  Pages pages(kNumPages - 1);
  for (int32_t i = 0; i < kNumPages - 1; ++i) pages[i] = i;
  PrefixCache::Cursor cursor;
  cache.insert("dense", book, pages, cursor);

  std::vector<PrefixMatch> waiting(32);
  const auto look_at_all = [&] {
    const int64_t before = cache.num_hashes();
    for (PrefixMatch& match : waiting) {
      cache.refresh("dense", book, match);
      EXPECT_EQ(match.num_pages(), kNumPages - 1);
    }
    return cache.num_hashes() - before;
  };
  EXPECT_EQ(look_at_all(), 32 * kNumPages) << "when they come";
  for (int turn = 0; turn < 3; ++turn) EXPECT_EQ(look_at_all(), 32);
  // What has been found of it all, nobody asks for again.
  const std::vector<int32_t> found(book.begin(), book.end() - kernels::kPageSize);
  const int64_t before = cache.num_hashes();
  cache.refresh("dense", found, waiting[0]);
  EXPECT_EQ(cache.num_hashes(), before);
}

// ---- the host tier ----

TEST_F(PrefixCacheTest, AnEntryIsFoundInEitherTier) {
  insert_unpinned("abc", {0, 1, 2});
  EXPECT_EQ(cache_.move_to_host(3), 2) << "the leaf leaves first";
  EXPECT_EQ(cache_.move_to_host(0), 1);
  EXPECT_EQ(find("abcd"), (Pages{0, -1, -4}));
  EXPECT_EQ(num_evictable(), 1);
  EXPECT_EQ(cache_.num_evictable(Tier::kHost), 2);
  EXPECT_FALSE(cache_.contains(1));
  cache_.check_integrity(std::vector<int32_t>(16, 0));
}

TEST_F(PrefixCacheTest, APinnedEntryComesBack) {
  insert_unpinned("ab", {0, 1});
  cache_.move_to_host(0);
  cache_.move_to_host(1);
  const PrefixMatch match = match_of(tokens_of("ab"));
  for (const EntryRef& ref : match.chain) cache_.pin(ref.entry);
  EXPECT_EQ(cache_.num_evictable(Tier::kHost), 0);
  EXPECT_EQ(cache_.move_to_device(match.chain[0].entry, 7), 1);
  EXPECT_EQ(cache_.move_to_device(match.chain[1].entry, 8), 0);
  EXPECT_EQ(find("ab"), (Pages{7, 8}));
  std::vector<int32_t> num_holders(16, 0);
  num_holders[7] = num_holders[8] = 1;
  cache_.check_integrity(num_holders);
  cache_.unpin(8);
  cache_.unpin(7);
  EXPECT_EQ(evict(), 8);
  EXPECT_EQ(evict(), 7);
}

TEST_F(PrefixCacheTest, TheHostLosesTheOldestLeafFirst) {
  insert_unpinned("ab", {0, 1});
  insert_unpinned("x", {2});
  for (const int32_t host_page : {0, 1, 2}) cache_.move_to_host(host_page);
  EXPECT_EQ(cache_.evict(Tier::kHost), 0);
  EXPECT_EQ(find("ab"), Pages{-2});
  EXPECT_EQ(cache_.evict(Tier::kHost), 1);
  EXPECT_EQ(cache_.evict(Tier::kHost), 2);
  EXPECT_EQ(cache_.num_entries(Tier::kHost), 0);
}

TEST_F(PrefixCacheTest, AChainOnTheHostMovesToPagesThatWereComputedAgain) {
  insert_unpinned("abc", {0, 1, 2});
  for (const int32_t host_page : {0, 1, 2}) cache_.move_to_host(host_page);
  PrefixCache::Cursor cursor;
  const Pages pages{4, 5, 6, 7};
  const auto inserted = cache_.insert("dense", tokens_of("abxy"), pages, cursor);
  EXPECT_EQ(inserted.pages, pages);
  EXPECT_EQ(inserted.host_pages, (Pages{2, 1}));
  EXPECT_EQ(find("abc"), (Pages{4, 5, -1}));
  std::vector<int32_t> num_holders(16, 0);
  for (const int32_t page : pages) num_holders[page] = 1;
  cache_.check_integrity(num_holders);
}

// A sequence with copies of pages pins nothing until its own pages join the chain.
TEST_F(PrefixCacheTest, NothingJoinsAChainWhoseEndIsOnTheHost) {
  insert_unpinned("ab", {0, 1});
  PrefixCache::Cursor cursor;
  const Pages pages{4, 5, 6};
  const std::vector<int32_t> tokens = tokens_of("abc");
  EXPECT_EQ(cache_.insert("dense", tokens, std::span(pages).first(2), cursor).pages, Pages{});
  for (const int32_t host_page : {0, 1}) cache_.move_to_host(host_page);
  const auto inserted = cache_.insert("dense", tokens, pages, cursor);
  EXPECT_EQ(inserted.pages, (Pages{5, 4, 6}));
  EXPECT_EQ(inserted.host_pages, (Pages{0, 1}));
  EXPECT_EQ(find("abc"), pages);
  std::vector<int32_t> num_holders(16, 0);
  for (const int32_t page : pages) num_holders[page] = 1;
  cache_.check_integrity(num_holders);
}

// Names blocks 1, 2, 3... and writes down what it is told.
class Notes : public CacheListener {
 public:
  uint64_t on_stored(std::string_view root, uint64_t parent, std::span<const int32_t> tokens,
                     Tier tier) override {
    EXPECT_EQ(tier, Tier::kDevice);
    EXPECT_EQ(tokens.size(), static_cast<size_t>(kernels::kPageSize));
    const std::string under = std::string(root) + " " + std::to_string(parent);
    lines.push_back(std::string(1, static_cast<char>(tokens[0])) + " under " + under);
    return ++last_;
  }
  void on_removed(std::string_view root, uint64_t hash, Tier) override {
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
  while (num_evictable() > 0) cache_.evict(Tier::kDevice);
  EXPECT_EQ(notes.lines,
            (std::vector<std::string>{"a under dense 0", "b under dense 1", "c under dense 2",
                                      "a under pbs 0", "- dense 3", "- dense 2", "- dense 1"}));
}

// Names a block by its first token, and writes down where it comes and goes.
class Places : public CacheListener {
 public:
  uint64_t on_stored(std::string_view, uint64_t, std::span<const int32_t> tokens,
                     Tier tier) override {
    lines.push_back(std::string(1, static_cast<char>(tokens[0])) + " in " + name(tier));
    return static_cast<uint64_t>(tokens[0]);
  }
  void on_removed(std::string_view, uint64_t hash, Tier tier) override {
    lines.push_back(std::string(1, static_cast<char>(hash)) + " out of " + name(tier));
  }

  std::vector<std::string> lines;

 private:
  static std::string name(Tier tier) { return tier == Tier::kDevice ? "device" : "host"; }
};

// Whoever looks for the page finds it somewhere at every moment.
TEST_F(PrefixCacheTest, TellsItsListenerWhereAPageGoes) {
  Places places;
  cache_.set_listener(&places);
  insert_unpinned("a", {0});
  cache_.move_to_host(3);
  const PrefixMatch match = match_of(tokens_of("a"));
  cache_.pin(match.chain[0].entry);
  cache_.move_to_device(match.chain[0].entry, 7);
  cache_.unpin(7);
  cache_.move_to_host(4);
  cache_.evict(Tier::kHost);
  EXPECT_EQ(places.lines, (std::vector<std::string>{"a in device", "a in host", "a out of device",
                                                    "a in device", "a out of host", "a in host",
                                                    "a out of device", "a out of host"}));
}

using PrefixCacheDeathTest = PrefixCacheTest;

TEST_F(PrefixCacheDeathTest, MisuseDies) {
  EXPECT_DEATH(evict(), "no cached page to evict");
  EXPECT_DEATH(cache_.pin(3), "not cached");
  EXPECT_DEATH(cache_.unpin(3), "not cached");
  EXPECT_DEATH(insert("a", {0, 1}), "not full");
  insert_unpinned("a", {0});
  EXPECT_DEATH(cache_.set_listener(nullptr), "cached before their listener");
  EXPECT_DEATH(cache_.unpin(0), "unpinned twice");
  EXPECT_DEATH(insert("b", {0}), "page cached twice");
}

}  // namespace
}  // namespace pbserve::engine
