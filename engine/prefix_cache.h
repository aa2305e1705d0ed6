// PrefixCache: which full page holds which tokens, and where it lies: on the device or, evicted
// from there, in the host tier. Entries form chains; the key of an entry is (its parent, its 128
// token ids), compared exactly, so a hash collision cannot matter. The first entry's parent is a
// root: a string that says how the K/V were made and for whom. Entries under different roots never
// match.
//
// An entry is pinned while a request holds its page or that of a descendant. Entries that are not
// pinned wait in one list for each tier, in the order in which their pins went or in which they
// came there: the front is the least recently used, and a child always stands before its parent,
// since a parent loses its last pin after its children. So leaves leave a tier first, and the
// parent of an entry on the device is on the device: the host holds whole ends of chains. Nothing
// on the host is pinned, but what is about to move to the device.
//
// An entry is held while somebody asked to keep its chain (cache_holds.h). Held entries without
// pins wait in lists of their own, in the same order: they leave the device after all others, for
// the host alone, and never leave the cache. The ancestors of what is held are held.
//
// Every operation on an entry is O(1); memory is fixed by the number of pages. Engine thread only.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/cache_listener.h"
#include "engine/salt_pages.h"

namespace pbserve::engine {

struct Location {
  Tier tier = Tier::kDevice;
  int32_t page = -1;  // of the tier
};

using EntryId = int32_t;

// An entry that may have left the cache meanwhile: its id is given to others, its serial never.
struct EntryRef {
  EntryId entry = -1;
  uint64_t serial = 0;
};

// The chain of cached pages that a prompt begins with, as far as it has been found.
struct PrefixMatch {
  std::vector<EntryRef> chain;

  int32_t num_pages() const { return static_cast<int32_t>(chain.size()); }
};

class PrefixCache {
 public:
  // Where the insertion of one sequence stands. It goes stale when its entry leaves the cache,
  // which insert() notices.
  struct Cursor {
    int32_t num_pages = 0;  // pages [0, num_pages) are registered or known as duplicates
    EntryRef last;          // entry of the last of them: the sequence's page, or the first copy
  };

  // Pages whose state an insertion changed.
  struct Inserted {
    std::vector<int32_t> pages;       // of the device, which joined the cache
    std::vector<int32_t> host_pages;  // which their entries left for one of those
  };

  // `num_buckets` of the hash table; 0 = a good number.
  explicit PrefixCache(int32_t num_pages, int32_t num_host_pages = 0, int32_t num_buckets = 0);

  // Makes `match` the longest chain of cached pages that `tokens` begins with. Drops what has left
  // the cache and goes on from there: where nothing changed, that is one hash at most.
  // REQUIRES: the same root, and the same tokens or more, in all calls for one match.
  void refresh(std::string_view root, std::span<const int32_t> tokens, PrefixMatch& match) const;

  // From here on `listener`, which outlives the cache, hears of every page. REQUIRES: no entries.
  void set_listener(CacheListener* listener);

  // The cursor of a sequence that holds the first `num_pages` pages of the match.
  static Cursor cursor_at(const PrefixMatch& match, int32_t num_pages);

  // Registers pages [cursor.num_pages, pages.size()) of a sequence that begins with `tokens`, each
  // with one pin for its holder. A page whose content is on the device already stays private; an
  // entry on the host moves to the page that the sequence holds.
  // REQUIRES: tokens cover the pages; the caller holds the pages.
  Inserted insert(std::string_view root, std::span<const int32_t> tokens,
                  std::span<const int32_t> pages, Cursor& cursor);

  bool contains(int32_t page) const { return entry_of_[page] != kNone; }  // of the device
  bool is_live(const EntryRef& ref) const { return entries_[ref.entry].serial == ref.serial; }
  // REQUIRES: is_live, of this and of the two below.
  Location location(EntryId entry) const { return entries_[entry].location; }
  bool is_pinned(EntryId entry) const { return entries_[entry].num_pins > 0; }

  // One pin per request that holds the page.
  void pin(EntryId entry);
  void unpin(int32_t page);  // REQUIRES: contains(page)
  void drop_pin(EntryId entry);

  // Holds the chain up to `last`, once more. Linear in what of it has no pin or was not held.
  void hold(EntryId last);
  void let_go(EntryId last);  // REQUIRES: a hold() of it
  bool is_held(EntryId entry) const { return entries_[entry].num_holds > 0; }
  std::vector<EntryId> chain_of(EntryId last) const;  // from the first one on

  // Removes the least recently used entry of a tier that may go and returns its page there.
  // REQUIRES: num_evictable(tier), and that the entry's children have left.
  int32_t evict(Tier tier);
  // Moves that entry, or a held one where there is none, from the device to a page of the host;
  // returns the page it leaves.
  int32_t move_to_host(int32_t host_page);
  // Moves an entry to a page of the device; returns the page of the host it leaves.
  // REQUIRES: it is on the host and pinned, its parent is on the device.
  int32_t move_to_device(EntryId entry, int32_t page);

  int32_t num_entries(Tier tier) const { return num_entries_[index_of(tier)]; }
  int32_t num_evictable(Tier tier) const { return list(tier, false).size; }
  int32_t num_held() const { return num_held_; }  // of both tiers, pinned or not
  int32_t num_held_unpinned(Tier tier) const { return list(tier, true).size; }
  const SaltPages& salts() const { return salts_; }
  std::vector<int32_t> host_pages() const;            // of all entries there; looks at every entry
  int64_t num_hashes() const { return num_hashes_; }  // of pages' tokens, since the start

  // Dies if the chains, the hash table, the pins, the holds, the places, the lists or the salts
  // contradict each other. `num_holders[page]` is the number of requests that hold the page of the
  // device, `held` the last entry of every hold().
  void check_integrity(std::span<const int32_t> num_holders,
                       std::span<const EntryId> held = {}) const;

 private:
  struct Root {
    uint64_t serial = 0;
    int32_t num_children = 0;
    SaltPages::Salts::iterator salt;
  };
  using Roots = std::map<std::string, Root, std::less<>>;

  static constexpr int32_t kNone = -1;

  struct Entry {
    uint64_t serial = 0;         // unique among all entries and roots ever; 0: not in use
    uint64_t parent_serial = 0;  // with the tokens, the key
    EntryId parent = kNone;      // kNone under a root
    int32_t num_children = 0;
    Roots::iterator root;  // of the chain
    Location location;
    int32_t num_pins = 0;   // requests that hold the page, and children that are pinned
    int32_t num_holds = 0;  // of the chain that ends here, and children that are held
    EntryId next_in_bucket = kNone;
    EntryId older = kNone;  // neighbours in a list of entries without pins
    EntryId newer = kNone;
    uint64_t hash = 0;  // the listener's name of the block
  };
  struct List {
    EntryId oldest = kNone;
    EntryId newest = kNone;
    int32_t size = 0;
  };

  static constexpr size_t index_of(Tier tier) { return static_cast<size_t>(tier); }
  const List& list(Tier tier, bool held) const { return lists_[index_of(tier)][held ? 1 : 0]; }
  List& list_of(EntryId entry) {
    return lists_[index_of(location(entry).tier)][is_held(entry) ? 1 : 0];
  }
  std::span<const int32_t> tokens_of(EntryId entry) const;
  size_t bucket_of(uint64_t parent_serial, std::span<const int32_t> tokens) const;
  EntryId find_child(uint64_t parent_serial, std::span<const int32_t> tokens) const;
  EntryId add(int32_t page, EntryId parent, Roots::iterator root, std::span<const int32_t> tokens);
  int32_t adopt(EntryId entry, int32_t page);
  void adopt_chain(std::span<const int32_t> pages, const Cursor& cursor, Inserted& inserted);
  void place(EntryId entry, Location location);
  void move(EntryId entry, Location location);
  void announce(EntryId entry);
  void remove_from_bucket(EntryId entry);
  void append_to_list(EntryId entry);
  void remove_from_list(EntryId entry);

  struct Counts {  // of the entries, counted anew
    std::vector<int32_t> pins;
    std::vector<int32_t> holds;
    std::vector<int32_t> children;
  };
  void check_entry(EntryId entry, Counts& counts) const;
  void check_roots() const;
  void check_salts() const;
  void check_list(Tier tier, bool held) const;

  std::vector<Entry> entries_;
  std::vector<int32_t> tokens_;  // [num_entries_max, kPageSize]
  std::vector<EntryId> unused_;
  std::vector<EntryId> entry_of_;  // by page of the device, or kNone
  std::vector<EntryId> buckets_;   // first entry of each, or kNone
  Roots roots_;                    // those that have children
  uint64_t last_serial_ = 0;
  List lists_[kNumTiers][2];  // the second: of held ones
  int32_t num_entries_[kNumTiers] = {0, 0};
  int32_t num_held_ = 0;
  SaltPages salts_;
  mutable int64_t num_hashes_ = 0;
  CacheListener* listener_ = nullptr;
};

}  // namespace pbserve::engine
