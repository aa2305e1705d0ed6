// What must hold between the entries of a PrefixCache, counted anew from scratch.
#include <map>
#include <numeric>

#include "engine/prefix_cache.h"
#include "kernels/core/check.h"

namespace pbserve::engine {

void PrefixCache::check_integrity(std::span<const int32_t> num_holders,
                                  std::span<const EntryId> held) const {
  const std::vector<int32_t> none(entries_.size(), 0);
  Counts counts{.pins = none, .holds = none, .children = none};
  for (const EntryId last : held) {
    check(entries_[last].serial != 0, "a held page has left the cache");
    ++counts.holds[last];
  }
  for (size_t page = 0; page < entry_of_.size(); ++page) {
    if (entry_of_[page] == kNone) continue;
    counts.pins[entry_of_[page]] = num_holders[page];
    const Location at = location(entry_of_[page]);
    check(at.tier == Tier::kDevice && at.page == static_cast<int32_t>(page),
          "a page's entry is elsewhere");
  }
  int32_t num_live[kNumTiers] = {0, 0};
  for (EntryId entry = 0; entry < std::ssize(entries_); ++entry) {
    if (entries_[entry].serial == 0) continue;
    ++num_live[index_of(location(entry).tier)];
    check_entry(entry, counts);
  }
  int32_t num_unpinned = 0;
  int32_t num_held = 0;
  for (size_t entry = 0; entry < entries_.size(); ++entry) {
    if (entries_[entry].serial == 0) continue;
    check_eq(entries_[entry].num_pins, counts.pins[entry], "pins of a cached page");
    check_eq(entries_[entry].num_holds, counts.holds[entry], "holds of a cached page");
    check_eq(entries_[entry].num_children, counts.children[entry], "children of a cached page");
    if (counts.pins[entry] == 0) ++num_unpinned;
    if (counts.holds[entry] > 0) ++num_held;
  }
  check_eq(num_held, num_held_, "number of held pages");
  int32_t num_listed = 0;
  for (const Tier tier : {Tier::kDevice, Tier::kHost}) {
    check_eq(num_live[index_of(tier)], num_entries(tier), "number of cached pages");
    for (const bool is_held : {false, true}) {
      check_list(tier, is_held);
      num_listed += list(tier, is_held).size;
    }
  }
  check_eq(num_unpinned, num_listed, "number of pages without pins");
  check_eq(std::accumulate(num_live, num_live + kNumTiers, size_t{0}) + unused_.size(),
           entries_.size(), "used and unused entries");
  check_roots();
  check_salts();
}

std::vector<int32_t> PrefixCache::host_pages() const {
  std::vector<int32_t> pages;
  for (const Entry& entry : entries_) {
    if (entry.serial != 0 && entry.location.tier == Tier::kHost) {
      pages.push_back(entry.location.page);
    }
  }
  return pages;
}

void PrefixCache::check_entry(EntryId id, Counts& counts) const {
  const Entry& entry = entries_[id];
  check_eq(find_child(entry.parent_serial, tokens_of(id)), id,
           "a cached page is not found by its key");
  if (entry.location.tier == Tier::kDevice) {
    check_eq(entry_of_[entry.location.page], id, "an entry's page is another's");
  } else {
    check_eq(entry.num_pins, 0, "pins of a page on the host");
  }
  if (entry.parent == kNone) {
    check_eq(entry.root->second.serial, entry.parent_serial, "a first page has another root");
    return;
  }
  const Entry& parent = entries_[entry.parent];
  check_eq(parent.serial, entry.parent_serial, "a page outlives its parent");
  check(parent.location.tier == Tier::kDevice || entry.location.tier == Tier::kHost,
        "a page is on the device and its parent on the host");
  ++counts.children[entry.parent];
  if (entry.num_pins > 0) ++counts.pins[entry.parent];
  if (entry.num_holds > 0) ++counts.holds[entry.parent];
}

void PrefixCache::check_roots() const {
  std::map<uint64_t, int32_t> num_children;
  for (const Entry& entry : entries_) {
    if (entry.serial != 0 && entry.parent == kNone) ++num_children[entry.parent_serial];
  }
  check_eq(num_children.size(), roots_.size(), "number of roots in use");
  for (const auto& [name, root] : roots_) {
    check_eq(num_children[root.serial], root.num_children, "number of first pages of a root");
  }
}

void PrefixCache::check_salts() const {
  std::map<std::string_view, int32_t> num_pages;
  for (const Entry& entry : entries_) {
    if (entry.serial != 0) ++num_pages[CacheRoot::parse(entry.root->first).salt];
  }
  check_eq(num_pages.size(), salts_.salts().size(), "number of salts in use");
  for (const auto& [name, salt] : salts_.salts()) {
    check_eq(salt.num_pages, num_pages[name], "pages of a salt");
  }
  salts_.check_integrity();
}

void PrefixCache::check_list(Tier tier, bool held) const {
  std::vector<bool> has_left(entries_.size(), false);
  int32_t num_listed = 0;
  EntryId older = kNone;
  for (EntryId id = list(tier, held).oldest; id != kNone; id = entries_[id].newer) {
    const Entry& entry = entries_[id];
    check(entry.serial != 0 && entry.num_pins == 0, "a listed page is not evictable");
    check(entry.location.tier == tier, "a page is in the list of another tier");
    check_eq(is_held(id), held, "a page is in the list of held ones, or should be");
    check_eq(entry.older, older, "the list's links contradict each other");
    check(entry.parent == kNone || !has_left[entry.parent],
          "a parent would be evicted before its child");
    has_left[id] = true;
    older = id;
    ++num_listed;
  }
  check_eq(older, list(tier, held).newest, "the list's newest page");
  check_eq(num_listed, list(tier, held).size, "number of pages in a list");
}

}  // namespace pbserve::engine
