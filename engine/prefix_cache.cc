#include "engine/prefix_cache.h"

#include <algorithm>
#include <bit>

#include "absl/hash/hash.h"
#include "absl/types/span.h"
#include "kernels/core/check.h"
#include "kernels/ops/rope.h"

namespace pbserve::engine {

using kernels::kPageSize;

namespace {

std::span<const int32_t> tokens_of_page(std::span<const int32_t> tokens, size_t index) {
  return tokens.subspan(index * kPageSize, kPageSize);
}

}  // namespace

PrefixCache::PrefixCache(int32_t num_pages, int32_t num_buckets)
    : entries_(num_pages),
      tokens_(static_cast<size_t>(num_pages) * kPageSize),
      buckets_(num_buckets > 0 ? num_buckets : std::bit_ceil(static_cast<uint32_t>(num_pages) + 1),
               kNone) {}

void PrefixCache::set_listener(CacheListener* listener) {
  check_eq(num_entries_, 0, "pages cached before their listener came");
  listener_ = listener;
}

std::vector<int32_t> PrefixCache::find(std::string_view root,
                                       std::span<const int32_t> tokens) const {
  std::vector<int32_t> pages;
  const auto found = roots_.find(root);
  if (found == roots_.end()) return pages;
  uint64_t parent_serial = found->second.serial;
  for (size_t i = 0; i < tokens.size() / kPageSize; ++i) {
    const int32_t page = find_child(parent_serial, tokens_of_page(tokens, i));
    if (page == kNone) break;
    pages.push_back(page);
    parent_serial = entries_[page].serial;
  }
  return pages;
}

PrefixCache::Cursor PrefixCache::cursor_at(std::span<const int32_t> chain) const {
  if (chain.empty()) return {};
  return {static_cast<int32_t>(chain.size()), chain.back(), entries_[chain.back()].serial};
}

std::vector<int32_t> PrefixCache::insert(std::string_view root, std::span<const int32_t> tokens,
                                         std::span<const int32_t> pages, Cursor& cursor) {
  check(pages.size() * kPageSize <= tokens.size(), "a page to cache is not full");
  std::vector<int32_t> added;
  if (is_stale(cursor)) cursor = {};
  if (static_cast<size_t>(cursor.num_pages) >= pages.size()) return added;

  auto top = roots_.find(root);
  check(cursor.num_pages == 0 || top != roots_.end(), "the root of a sequence changed");
  if (top == roots_.end()) top = roots_.emplace(root, Root{.serial = ++last_serial_}).first;
  for (size_t i = cursor.num_pages; i < pages.size(); ++i) {
    const uint64_t parent_serial = i == 0 ? top->second.serial : cursor.serial;
    int32_t page = find_child(parent_serial, tokens_of_page(tokens, i));
    if (page == kNone) {
      page = pages[i];
      add(page, cursor.page, top, tokens_of_page(tokens, i));
      added.push_back(page);
    }
    cursor = {static_cast<int32_t>(i + 1), page, entries_[page].serial};
  }
  return added;
}

void PrefixCache::pin(int32_t page) {
  check(contains(page), "pin of a page that is not cached");
  for (; page != kNone; page = entries_[page].parent) {
    if (++entries_[page].num_pins > 1) return;  // its ancestors are pinned through it already
    remove_from_list(page);
  }
}

void PrefixCache::unpin(int32_t page) {
  check(contains(page), "unpin of a page that is not cached");
  for (; page != kNone; page = entries_[page].parent) {
    check(entries_[page].num_pins > 0, "cached page unpinned twice");
    if (--entries_[page].num_pins > 0) return;
    append_to_list(page);
  }
}

int32_t PrefixCache::evict() {
  check(oldest_ != kNone, "no cached page to evict");
  const int32_t page = oldest_;
  remove_from_list(page);
  remove_from_bucket(page);
  Entry& entry = entries_[page];
  if (listener_) listener_->on_removed(entry.root->first, entry.hash, CacheTier::kDevice);
  if (entry.parent == kNone && --entry.root->second.num_children == 0) roots_.erase(entry.root);
  entry = Entry{};
  --num_entries_;
  return page;
}

std::span<const int32_t> PrefixCache::tokens_of(int32_t page) const {
  return tokens_of_page(tokens_, page);
}

size_t PrefixCache::bucket_of(uint64_t parent_serial, std::span<const int32_t> tokens) const {
  const absl::Span<const int32_t> hashable(tokens.data(), tokens.size());
  return absl::HashOf(parent_serial, hashable) % buckets_.size();
}

int32_t PrefixCache::find_child(uint64_t parent_serial, std::span<const int32_t> tokens) const {
  int32_t page = buckets_[bucket_of(parent_serial, tokens)];
  while (page != kNone && (entries_[page].parent_serial != parent_serial ||
                           !std::ranges::equal(tokens_of(page), tokens))) {
    page = entries_[page].next_in_bucket;
  }
  return page;
}

bool PrefixCache::is_stale(const Cursor& cursor) const {
  return cursor.num_pages > 0 && entries_[cursor.page].serial != cursor.serial;
}

void PrefixCache::add(int32_t page, int32_t parent, Roots::iterator root,
                      std::span<const int32_t> tokens) {
  check(!contains(page), "page cached twice");
  std::ranges::copy(tokens, tokens_.begin() + static_cast<int64_t>(page) * kPageSize);
  Entry& entry = entries_[page];
  entry.serial = ++last_serial_;
  entry.parent = parent;
  entry.root = root;
  entry.num_pins = 1;
  if (parent == kNone) {
    entry.parent_serial = root->second.serial;
    ++root->second.num_children;
  } else {
    entry.parent_serial = entries_[parent].serial;
    pin(parent);
  }
  int32_t& first = buckets_[bucket_of(entry.parent_serial, tokens)];
  entry.next_in_bucket = first;
  first = page;
  ++num_entries_;
  if (listener_ == nullptr) return;
  const uint64_t parent_hash = parent == kNone ? 0 : entries_[parent].hash;
  entry.hash = listener_->on_stored(root->first, parent_hash, tokens, CacheTier::kDevice);
}

void PrefixCache::remove_from_bucket(int32_t page) {
  int32_t* link = &buckets_[bucket_of(entries_[page].parent_serial, tokens_of(page))];
  while (*link != page) link = &entries_[*link].next_in_bucket;
  *link = entries_[page].next_in_bucket;
}

void PrefixCache::append_to_list(int32_t page) {
  entries_[page].older = newest_;
  entries_[page].newer = kNone;
  (newest_ == kNone ? oldest_ : entries_[newest_].newer) = page;
  newest_ = page;
  ++num_evictable_;
}

void PrefixCache::remove_from_list(int32_t page) {
  const Entry& entry = entries_[page];
  (entry.older == kNone ? oldest_ : entries_[entry.older].newer) = entry.newer;
  (entry.newer == kNone ? newest_ : entries_[entry.newer].older) = entry.older;
  --num_evictable_;
}

void PrefixCache::check_integrity(std::span<const int32_t> num_holders) const {
  std::vector<int32_t> num_pins(num_holders.begin(), num_holders.end());
  std::map<uint64_t, int32_t> root_children;
  int32_t num_live = 0;
  for (size_t page = 0; page < entries_.size(); ++page) {
    const Entry& entry = entries_[page];
    if (entry.serial == 0) continue;
    ++num_live;
    check_eq(find_child(entry.parent_serial, tokens_of(static_cast<int32_t>(page))),
             static_cast<int32_t>(page), "a cached page is not found by its key");
    if (entry.parent == kNone) {
      ++root_children[entry.root->second.serial];
      check_eq(entry.root->second.serial, entry.parent_serial, "a first page has another root");
    } else {
      check_eq(entries_[entry.parent].serial, entry.parent_serial, "a page outlives its parent");
      if (entry.num_pins > 0) ++num_pins[entry.parent];
    }
  }
  check_eq(num_live, num_entries_, "number of cached pages");
  check_eq(root_children.size(), roots_.size(), "number of roots in use");
  for (const auto& [name, root] : roots_) {
    check_eq(root_children[root.serial], root.num_children, "number of first pages of a root");
  }
  check_list(num_pins);
}

void PrefixCache::check_list(std::span<const int32_t> num_pins) const {
  int32_t num_unpinned = 0;
  for (size_t page = 0; page < entries_.size(); ++page) {
    if (entries_[page].serial == 0) continue;
    check_eq(entries_[page].num_pins, num_pins[page], "pins of a cached page");
    if (num_pins[page] == 0) ++num_unpinned;
  }
  std::vector<bool> is_evicted(entries_.size(), false);
  int32_t num_listed = 0;
  int32_t older = kNone;
  for (int32_t page = oldest_; page != kNone; page = entries_[page].newer) {
    check(contains(page) && entries_[page].num_pins == 0, "a listed page is not evictable");
    check_eq(entries_[page].older, older, "the list's links contradict each other");
    const int32_t parent = entries_[page].parent;
    check(parent == kNone || !is_evicted[parent], "a parent would be evicted before its child");
    is_evicted[page] = true;
    older = page;
    ++num_listed;
  }
  check_eq(older, newest_, "the list's newest page");
  check_eq(num_listed, num_evictable_, "number of evictable pages");
  check_eq(num_unpinned, num_evictable_, "number of pages without pins");
}

}  // namespace pbserve::engine
