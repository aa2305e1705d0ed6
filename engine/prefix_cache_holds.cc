// Held chains of a PrefixCache. Like pins, holds are counted on the last entry of a chain and reach
// its ancestors by one count a child, so that shared beginnings are counted once.
#include <algorithm>

#include "engine/prefix_cache.h"
#include "kernels/core/check.h"

namespace pbserve::engine {

// The pin takes the chain out of the lists, and puts it back into those of held entries in their
// order: some of the chain's ancestors may be there already.
void PrefixCache::hold(EntryId last) {
  pin(last);
  for (EntryId entry = last; entry != kNone; entry = entries_[entry].parent) {
    if (++entries_[entry].num_holds > 1) break;
    ++num_held_;
  }
  drop_pin(last);
}

void PrefixCache::let_go(EntryId last) {
  for (EntryId entry = last; entry != kNone; entry = entries_[entry].parent) {
    check(is_held(entry), "cached page let go twice");
    if (entries_[entry].num_holds > 1) {
      --entries_[entry].num_holds;
      return;
    }
    if (!is_pinned(entry)) remove_from_list(entry);
    entries_[entry].num_holds = 0;
    --num_held_;
    if (!is_pinned(entry)) append_to_list(entry);
  }
}

std::vector<EntryId> PrefixCache::chain_of(EntryId last) const {
  std::vector<EntryId> chain;
  for (EntryId entry = last; entry != kNone; entry = entries_[entry].parent) chain.push_back(entry);
  std::ranges::reverse(chain);
  return chain;
}

}  // namespace pbserve::engine
