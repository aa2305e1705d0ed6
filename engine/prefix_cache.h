// PrefixCache: which full page holds which tokens. Pages form chains; the key of a page is
// (its parent page, its 128 token ids), compared exactly, so a hash collision cannot matter. The
// first page's parent is a root: a string that says how the K/V were made and for whom. Pages under
// different roots never match.
//
// A page is pinned while a request holds it or a descendant of it. Pages that are not pinned wait
// in one list, in the order in which their pins went: the front is the least recently used, and a
// child always stands before its parent, since a parent loses its last pin after its children.
// Every operation on a page is O(1); memory is fixed by the number of pages. Engine thread only.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/cache_listener.h"

namespace pbserve::engine {

class PrefixCache {
 public:
  // Where the insertion of one sequence stands. It goes stale when its page leaves the cache, which
  // insert() notices.
  struct Cursor {
    int32_t num_pages = 0;  // pages [0, num_pages) are registered or known as duplicates
    int32_t page = -1;      // entry of the last of them: the sequence's page, or the first copy
    uint64_t serial = 0;    // of that entry
  };

  // `num_buckets` of the hash table; 0 = a good number.
  explicit PrefixCache(int32_t num_pages, int32_t num_buckets = 0);

  // From here on `listener`, which outlives the cache, hears of every page. REQUIRES: no entries.
  void set_listener(CacheListener* listener);

  // The longest chain of cached pages that `tokens` begins with.
  std::vector<int32_t> find(std::string_view root, std::span<const int32_t> tokens) const;

  // The cursor of a sequence whose pages are `chain`, as found.
  Cursor cursor_at(std::span<const int32_t> chain) const;

  // Registers pages [cursor.num_pages, pages.size()) of a sequence that begins with `tokens`.
  // REQUIRES: tokens cover the pages; the caller holds the pages. Returns the pages that joined the
  // cache, each with one pin for its holder; a page whose content is cached already stays private.
  std::vector<int32_t> insert(std::string_view root, std::span<const int32_t> tokens,
                              std::span<const int32_t> pages, Cursor& cursor);

  bool contains(int32_t page) const { return entries_[page].serial != 0; }

  // One pin per request that holds the page. REQUIRES: contains(page).
  void pin(int32_t page);
  void unpin(int32_t page);

  // Removes the least recently used page that has no pin and returns it. REQUIRES: num_evictable().
  int32_t evict();

  int32_t num_entries() const { return num_entries_; }
  int32_t num_evictable() const { return num_evictable_; }

  // Dies if the chains, the hash table, the pins or the list contradict each other.
  // `num_holders[page]` is the number of requests that hold the page.
  void check_integrity(std::span<const int32_t> num_holders) const;

 private:
  struct Root {
    uint64_t serial = 0;
    int32_t num_children = 0;
  };
  using Roots = std::map<std::string, Root, std::less<>>;

  static constexpr int32_t kNone = -1;

  struct Entry {
    uint64_t serial = 0;  // unique among all entries and roots ever; 0: the page has no entry
    uint64_t parent_serial = 0;  // with the tokens, the key
    int32_t parent = kNone;      // page, or kNone under a root
    Roots::iterator root;        // of the chain
    int32_t num_pins = 0;        // requests that hold the page, and children that are pinned
    int32_t next_in_bucket = kNone;
    int32_t older = kNone;  // neighbours in the list of pages without pins
    int32_t newer = kNone;
    uint64_t hash = 0;  // the listener's name of the block
  };

  void check_list(std::span<const int32_t> num_pins) const;
  std::span<const int32_t> tokens_of(int32_t page) const;
  size_t bucket_of(uint64_t parent_serial, std::span<const int32_t> tokens) const;
  int32_t find_child(uint64_t parent_serial, std::span<const int32_t> tokens) const;
  bool is_stale(const Cursor& cursor) const;
  void add(int32_t page, int32_t parent, Roots::iterator root, std::span<const int32_t> tokens);
  void remove_from_bucket(int32_t page);
  void append_to_list(int32_t page);
  void remove_from_list(int32_t page);

  std::vector<Entry> entries_;    // by page
  std::vector<int32_t> tokens_;   // [num_pages, kPageSize]
  std::vector<int32_t> buckets_;  // first page of each, or kNone
  Roots roots_;                   // those that have children
  uint64_t last_serial_ = 0;
  int32_t oldest_ = kNone;
  int32_t newest_ = kNone;
  int32_t num_entries_ = 0;
  int32_t num_evictable_ = 0;
  CacheListener* listener_ = nullptr;
};

}  // namespace pbserve::engine
