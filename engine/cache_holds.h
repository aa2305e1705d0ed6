// CacheHolds: until when which chains of cached pages are held. A hold names the last page of its
// chain; of one chain the longest time counts, so there are no more holds than cached pages.
// Logarithmic in the holds. Engine thread only.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "engine/prefix_cache.h"
#include "engine/request.h"

namespace pbserve::engine {

class CacheHolds {
 public:
  // `cache` outlives the holds.
  explicit CacheHolds(PrefixCache& cache) : cache_(cache) {}

  // Holds the chain up to `last`. REQUIRES: `last` is in the cache.
  void add(EntryId last, Clock::time_point until);
  // Lets go of those whose time has come.
  void expire(Clock::time_point time);
  // Lets go of the one that would end first. REQUIRES: there is one.
  void break_first();

  int32_t size() const { return static_cast<int32_t>(ends_.size()); }
  std::vector<EntryId> chains() const;  // the last entry of each

 private:
  PrefixCache& cache_;
  std::map<EntryId, Clock::time_point> ends_;
  std::set<std::pair<Clock::time_point, EntryId>> by_time_;
};

}  // namespace pbserve::engine
