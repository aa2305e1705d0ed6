// The KvCachePool's held pages. With R pages of the host that held ones could move to, free or
// evictable there, all but R of the held pages without pins stay on the device: those are not
// available.
#include <algorithm>

#include "engine/kv_cache_pool.h"
#include "kernels/core/check.h"

namespace pbserve::engine {

int32_t KvCachePool::num_evictable() const {
  const int32_t num_places = host_allocator_.num_free() + cache_.num_evictable(Tier::kHost);
  return cache_.num_evictable(Tier::kDevice) +
         std::min(cache_.num_held_unpinned(Tier::kDevice), num_places);
}

// The ancestors of what is held are held.
int32_t KvCachePool::num_held_of(const PrefixMatch& match, int32_t num_pages) const {
  const auto end = match.chain.begin() + num_pages;
  const auto found = std::partition_point(
      match.chain.begin(), end, [&](const EntryRef& ref) { return cache_.is_held(ref.entry); });
  return static_cast<int32_t>(found - match.chain.begin());
}

// Held pages that stay on the device are not available before and not after: they cost nothing. A
// held page that comes from the host leaves its place to one of them.
int32_t KvCachePool::num_needed(const PrefixMatch& match, int32_t num_pages) const {
  first_on_host(match, num_pages);  // checks the match
  const int32_t unpinned = first_unpinned(match, num_pages);
  const int32_t num_held = std::max(0, num_held_of(match, num_pages) - unpinned);
  const int32_t num_places = host_allocator_.num_free() + cache_.num_evictable(Tier::kHost);
  const int32_t num_staying = std::max(0, cache_.num_held_unpinned(Tier::kDevice) - num_places);
  return num_pages - unpinned - std::min(num_held, num_staying);
}

int32_t KvCachePool::hold(const BlockTable& table, Clock::time_point until, int64_t num_spare) {
  const PrefixCache::Cursor& cursor = table.cursor_;
  if (cursor.num_pages == 0) return 0;
  check(cache_.is_live(cursor.last), "a hold of pages that have left the cache");
  const std::vector<EntryId> chain = cache_.chain_of(cursor.last.entry);
  int64_t num_more = max_held_ - cache_.num_held();
  size_t count = 0;
  for (const EntryId entry : chain) {
    if (!cache_.is_held(entry)) {
      if (num_more <= 0 || (!cache_.is_pinned(entry) && num_spare <= 0)) break;
      --num_more;
      if (!cache_.is_pinned(entry)) --num_spare;
    }
    ++count;
  }
  if (count < chain.size()) ++num_cut_;
  if (count > 0) holds_.add(chain[count - 1], until);
  return static_cast<int32_t>(count);
}

// What is held beside the match goes to the host as far as the host holds it.
void KvCachePool::break_holds_for(const PrefixMatch& match, int32_t num_matched,
                                  int64_t num_pages) {
  if (num_pages > this->num_pages()) return;
  while (holds_.size() > 0) {
    const int64_t num_others = cache_.num_held() - num_held_of(match, num_matched);
    if (num_pages + num_others <= this->num_pages() + num_host_pages()) return;
    holds_.break_first();
    ++num_broken_;
  }
}

HoldState KvCachePool::hold_state() const {
  return {.num_holds = holds_.size(),
          .num_pages = cache_.num_held(),
          .num_broken = num_broken_,
          .num_cut = num_cut_};
}

}  // namespace pbserve::engine
