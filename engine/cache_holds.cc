#include "engine/cache_holds.h"

#include "kernels/core/check.h"

namespace pbserve::engine {

void CacheHolds::add(EntryId last, Clock::time_point until) {
  const auto [hold, is_new] = ends_.try_emplace(last, until);
  if (is_new) {
    cache_.hold(last);
  } else {
    if (until <= hold->second) return;
    by_time_.erase({hold->second, last});
    hold->second = until;
  }
  by_time_.insert({until, last});
}

void CacheHolds::expire(Clock::time_point time) {
  while (!by_time_.empty() && by_time_.begin()->first <= time) break_first();
}

void CacheHolds::break_first() {
  check(!by_time_.empty(), "no hold to break");
  const EntryId last = by_time_.begin()->second;
  by_time_.erase(by_time_.begin());
  ends_.erase(last);
  cache_.let_go(last);
}

std::vector<EntryId> CacheHolds::chains() const {
  std::vector<EntryId> chains;
  for (const auto& [last, until] : ends_) chains.push_back(last);
  return chains;
}

}  // namespace pbserve::engine
