// KvCachePool: who holds which page of the KV cache: reference counts, prefix index, and what moves
// between the device and the host tier. A page of the device is in one of three states: free, used
// (a request holds it) or cached (the prefix cache alone does); a page of the host is free or
// cached. Engine thread only.
//
// A cached page that the device has no room for moves to the host tier and can be found there; the
// host's least recently used page makes room for it. Without a host tier it is lost.
//
// A held page (cache_holds.h) is not lost: it moves to the host, or stays where it is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/block_table.h"
#include "engine/cache_holds.h"
#include "engine/page_allocator.h"
#include "engine/page_copies.h"
#include "engine/page_memory.h"
#include "engine/prefix_cache.h"

namespace pbserve::engine {

enum class FreedPages : uint8_t {
  kKeep,    // as the last owner left them
  kPoison,  // filled with NaN, so that a read of a stale page shows (CPU only)
};

struct KvCacheOptions {
  int64_t num_pages = 1;
  int64_t num_host_pages = 0;  // 0 = no host tier
  FreedPages freed_pages = FreedPages::kKeep;
  CopyTiming copies = CopyTiming::kAtOnce;
  double max_held_share = 0.5;  // of the pages of both tiers
};

// When pages that are handed out may be written. One that was evicted to make room for them is
// still being copied to the host.
enum class Handover : uint8_t {
  kNow,    // by any step launched from here on: such a step waits where it must
  kLater,  // not before is_loaded(table)
};

// Since the start, in pages.
struct TierCounters {
  int64_t num_device_hits = 0;  // acquired where they were
  int64_t num_host_hits = 0;    // acquired from the host
  int64_t num_to_host = 0;      // copied
  int64_t num_to_device = 0;
  int64_t num_dropped = 0;  // cached pages lost: evicted from the last tier there is
};

struct HoldState {
  int64_t num_holds = 0;
  int64_t num_pages = 0;   // of both tiers, each counted once
  int64_t num_broken = 0;  // since the start: holds that made way for a prompt
  int64_t num_cut = 0;     // since the start: holds that were given less than they asked for
};

class KvCachePool {
 public:
  // kInvalidArgument if a number of pages is out of range, kResourceExhausted if the memory is.
  // `compute`, on which all steps run, outlives the pool.
  static absl::StatusOr<std::unique_ptr<KvCachePool>> create(const kernels::Stream& compute,
                                                             const KvCacheShape& shape,
                                                             const KvCacheOptions& options);
  // Without a host tier.
  static absl::StatusOr<std::unique_ptr<KvCachePool>> create(
      kernels::Device device, const KvCacheShape& shape, int64_t num_pages,
      FreedPages freed_pages = FreedPages::kKeep);
  ~KvCachePool();  // REQUIRES: all BlockTables of the pool are gone
  KvCachePool(const KvCachePool&) = delete;
  KvCachePool& operator=(const KvCachePool&) = delete;

  // Tells `listener`, which outlives the pool, of the prefix cache. REQUIRES: nothing is cached.
  void set_listener(CacheListener* listener) { cache_.set_listener(listener); }

  // Appends `num_pages` pages, evicting cached ones where the free ones do not suffice. All or
  // nothing: false, and nothing changes, if num_available() < num_pages.
  [[nodiscard]] bool allocate(BlockTable& table, int32_t num_pages,
                              Handover handover = Handover::kNow);

  // Brings `match` up to date: the cached pages, in whatever tier, that `tokens` begins with.
  // `root` says how the K/V were made and for whom. Where nothing changed it costs one hash at
  // most. REQUIRES: the same root, and the same tokens or more, in all calls for one match.
  void refresh(std::string_view root, std::span<const int32_t> tokens, PrefixMatch& match) const;

  // Appends the first `num_pages` pages of the match. Those on the host get pages of the device and
  // their copies begin; nothing may read or write the table's pages before is_loaded(table). All or
  // nothing: false, and nothing changes, if num_available() < num_needed(match, num_pages), or if
  // that is all there is and held pages leave no page to swap through.
  // The caller leaves something to compute, and takes no more than the prefill may use.
  // REQUIRES: the match is refreshed and nothing was evicted since; the table is empty.
  [[nodiscard]] bool acquire(const PrefixMatch& match, int32_t num_pages, BlockTable& table);

  // By how much acquire() would lower num_available(). Logarithmic in the pages.
  int32_t num_needed(const PrefixMatch& match, int32_t num_pages) const;

  // Whether the table's pages may be used: those that come from the host have arrived, and those
  // that were given with kLater have been copied away.
  bool is_loaded(const BlockTable& table);

  // In place of asking is_loaded: steps that are launched from here on wait for it, all of them.
  void hold_back_steps(const BlockTable& table);

  // Registers the table's first `num_pages` pages, whose K/V are complete, or will be when the
  // launched steps have run, and hold the beginning of `tokens`. Cheap to repeat: it goes on where
  // the last call for this table stopped.
  // REQUIRES: the same root, and the same tokens, in all calls for one table.
  void insert(std::string_view root, std::span<const int32_t> tokens, BlockTable& table,
              int32_t num_pages);

  // Keeps the table's registered pages in the cache until `until`, as far as the share of held
  // pages has room, from the first page on. Pages that others hold already cost nothing. At most
  // `num_spare` of them become unavailable that were available. Returns the number of pages held.
  // REQUIRES: nothing happened to the pool since insert() for this table.
  int32_t hold(const BlockTable& table, Clock::time_point until, int64_t num_spare);
  // Ends the holds whose time has come.
  void expire_holds(Clock::time_point time) { holds_.expire(time); }
  // Breaks holds, those that would end first, until a prompt of `num_pages` pages, which begins
  // with the first `num_matched` of the match, would fit if it were the only one. Nothing where it
  // never will. REQUIRES: the match is refreshed.
  void break_holds_for(const PrefixMatch& match, int32_t num_matched, int64_t num_pages);

  // This layer's pages, all of them.
  models::KvPages layer(int64_t index) const { return memory_.layer(index); }
  int64_t page_bytes() const { return memory_.shape().page_bytes(); }

  int32_t num_pages() const { return allocator_.num_pages(); }
  int32_t num_free() const { return allocator_.num_free(); }
  int32_t num_used() const { return num_used_; }
  int32_t num_cached() const { return num_pages() - num_free() - num_used(); }
  // Pages that can be had at once.
  int32_t num_available() const { return num_free() + num_evictable(); }

  int32_t num_host_pages() const { return host_allocator_.num_pages(); }
  int32_t num_host_cached() const { return cache_.num_entries(Tier::kHost); }
  TierCounters counters() const;
  HoldState hold_state() const;
  const SaltPages& salts() const { return cache_.salts(); }
  int64_t num_hashes() const { return cache_.num_hashes(); }  // of pages' tokens, for look-ups

  // Tests, CopyTiming::kDeferred.
  PageCopies& copies() { return *copies_; }

  // Dies unless every page of the device is free, used or cached, every page of the host free or
  // cached, and every reference count equals the number of holders: `tables`, all of the pool's
  // tables that hold pages, and the prefix cache.
  void check_integrity(std::span<const BlockTable* const> tables) const;

 private:
  friend class BlockTable;

  KvCachePool(PageMemory memory, const KvCacheOptions& options);

  int32_t num_holders(int32_t page) const;  // requests that hold the page
  void release(int32_t page);               // one reference of a request
  void drop_ref(int32_t page);              // of a request or of the prefix cache
  void make_room(int32_t num_free, int32_t num_host_free);
  void evict(int32_t num_host_free);
  int32_t take_host_page(int32_t num_host_free);
  void load(std::span<const EntryRef> entries);
  int32_t first_on_host(const PrefixMatch& match, int32_t num_pages) const;
  int32_t first_unpinned(const PrefixMatch& match, int32_t num_pages) const;
  int32_t num_held_of(const PrefixMatch& match, int32_t num_pages) const;
  int32_t num_evictable() const;

  FreedPages freed_pages_;
  PageMemory memory_;
  PageAllocator allocator_;
  PageAllocator host_allocator_;
  PrefixCache cache_;
  CacheHolds holds_;
  int32_t max_held_;                  // pages
  std::optional<PageCopies> copies_;  // with a host tier
  int32_t reserve_ = 0;               // pages that are free before they are asked for
  int32_t host_reserve_ = 0;
  int32_t num_used_ = 0;
  TierCounters counters_;
  int64_t num_broken_ = 0;
  int64_t num_cut_ = 0;
};

}  // namespace pbserve::engine
