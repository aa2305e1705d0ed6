#include "engine/prefill_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pbserve::engine {

double patience_ms(double backlog_ms, int32_t priority) {
  return std::ldexp(kLateness * backlog_ms + kPatienceMs, priority);
}

// By due time everybody's turn comes in time if that is possible at all. So each may be overtaken
// for as long as it and all that are due before it could still be computed before it is due.
std::vector<size_t> prefill_order(std::span<const PrefillClaim> claims) {
  constexpr double kTurnMs = 100;  // about what passes before the order is looked at again
  std::vector<size_t> order(claims.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return claims[i].due_ms; });
  double before_ms = 0;
  auto free_end = order.begin();  // those before it may overtake each other
  while (free_end != order.end()) {
    const PrefillClaim& claim = claims[*free_end++];
    before_ms += claim.remaining_ms;
    if (claim.due_ms - before_ms < kTurnMs) break;
  }
  std::stable_sort(order.begin(), free_end, [&](size_t i, size_t j) {
    return std::ldexp(claims[i].remaining_ms, claims[i].priority) <
           std::ldexp(claims[j].remaining_ms, claims[j].priority);
  });
  return order;
}

}  // namespace pbserve::engine
