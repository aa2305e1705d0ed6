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

size_t num_buckets_for(int64_t num_entries) {
  return std::bit_ceil(static_cast<uint64_t>(num_entries) + 1);
}

}  // namespace

PrefixCache::PrefixCache(int32_t num_pages, int32_t num_host_pages, int32_t num_buckets)
    : entries_(static_cast<size_t>(num_pages) + num_host_pages),
      tokens_(entries_.size() * kPageSize),
      unused_(entries_.size()),
      entry_of_(num_pages, kNone),
      buckets_(num_buckets > 0 ? num_buckets : num_buckets_for(std::ssize(entries_)), kNone),
      salts_(entries_.size()) {
  for (size_t i = 0; i < unused_.size(); ++i) {
    unused_[i] = static_cast<EntryId>(unused_.size() - 1 - i);  // entry 0 goes first
  }
}

void PrefixCache::set_listener(CacheListener* listener) {
  check_eq(unused_.size(), entries_.size(), "pages cached before their listener came");
  listener_ = listener;
}

// An entry leaves after its descendants, so what is stale of a chain is its end.
void PrefixCache::refresh(std::string_view root, std::span<const int32_t> tokens,
                          PrefixMatch& match) const {
  std::vector<EntryRef>& chain = match.chain;
  while (!chain.empty() && !is_live(chain.back())) chain.pop_back();
  if (chain.size() >= tokens.size() / kPageSize) return;
  uint64_t parent_serial = 0;
  if (chain.empty()) {
    const auto found = roots_.find(root);
    if (found == roots_.end()) return;
    parent_serial = found->second.serial;
  } else {
    parent_serial = chain.back().serial;
  }
  for (size_t i = chain.size(); i < tokens.size() / kPageSize; ++i) {
    const EntryId entry = find_child(parent_serial, tokens_of_page(tokens, i));
    if (entry == kNone) return;
    parent_serial = entries_[entry].serial;
    chain.push_back({entry, parent_serial});
  }
}

PrefixCache::Cursor PrefixCache::cursor_at(const PrefixMatch& match, int32_t num_pages) {
  if (num_pages == 0) return {};
  return {num_pages, match.chain[num_pages - 1]};
}

PrefixCache::Inserted PrefixCache::insert(std::string_view root, std::span<const int32_t> tokens,
                                          std::span<const int32_t> pages, Cursor& cursor) {
  check(pages.size() * kPageSize <= tokens.size(), "a page to cache is not full");
  Inserted inserted;
  if (cursor.num_pages > 0 && !is_live(cursor.last)) cursor = {};
  if (static_cast<size_t>(cursor.num_pages) >= pages.size()) return inserted;

  auto top = roots_.find(root);
  check(cursor.num_pages == 0 || top != roots_.end(), "the root of a sequence changed");
  if (top == roots_.end()) {
    const auto salt = salts_.find_or_add(CacheRoot::parse(root).salt);
    top = roots_.emplace(root, Root{.serial = ++last_serial_, .salt = salt}).first;
  }
  adopt_chain(pages, cursor, inserted);
  for (size_t i = cursor.num_pages; i < pages.size(); ++i) {
    const uint64_t parent_serial = i == 0 ? top->second.serial : cursor.last.serial;
    EntryId entry = find_child(parent_serial, tokens_of_page(tokens, i));
    if (entry == kNone) {
      entry = add(pages[i], cursor.last.entry, top, tokens_of_page(tokens, i));
      inserted.pages.push_back(pages[i]);
    } else if (location(entry).tier == Tier::kHost) {
      inserted.host_pages.push_back(adopt(entry, pages[i]));
      inserted.pages.push_back(pages[i]);
    }
    cursor = {static_cast<int32_t>(i + 1), {entry, entries_[entry].serial}};
  }
  return inserted;
}

// A sequence that holds copies of pages does not pin their entries. Those that moved to the host
// since then move to the copies before anything joins the chain below them.
void PrefixCache::adopt_chain(std::span<const int32_t> pages, const Cursor& cursor,
                              Inserted& inserted) {
  EntryId entry = cursor.last.entry;
  for (int32_t i = cursor.num_pages; i > 0 && location(entry).tier == Tier::kHost; --i) {
    inserted.host_pages.push_back(adopt(entry, pages[i - 1]));
    inserted.pages.push_back(pages[i - 1]);
    entry = entries_[entry].parent;
  }
}

void PrefixCache::pin(EntryId entry) {
  check(entries_[entry].serial != 0, "pin of a page that is not cached");
  for (; entry != kNone; entry = entries_[entry].parent) {
    if (++entries_[entry].num_pins > 1) return;  // its ancestors are pinned through it already
    remove_from_list(entry);
  }
}

void PrefixCache::unpin(int32_t page) {
  check(contains(page), "unpin of a page that is not cached");
  drop_pin(entry_of_[page]);
}

void PrefixCache::drop_pin(EntryId entry) {
  for (; entry != kNone; entry = entries_[entry].parent) {
    check(entries_[entry].num_pins > 0, "cached page unpinned twice");
    if (--entries_[entry].num_pins > 0) return;
    append_to_list(entry);
  }
}

int32_t PrefixCache::evict(Tier tier) {
  const EntryId id = list(tier, false).oldest;
  check(id != kNone, "no cached page to evict");
  remove_from_list(id);
  remove_from_bucket(id);
  Entry& entry = entries_[id];
  check_eq(entry.num_children, 0, "children of an evicted page");
  if (listener_) listener_->on_removed(entry.root->first, entry.hash, tier);
  const int32_t page = entry.location.page;
  if (tier == Tier::kDevice) entry_of_[page] = kNone;
  salts_.remove_page(entry.root->second.salt);
  if (entry.parent != kNone) {
    --entries_[entry.parent].num_children;
  } else if (--entry.root->second.num_children == 0) {
    roots_.erase(entry.root);
  }
  entry = Entry{};
  unused_.push_back(id);
  --num_entries_[index_of(tier)];
  return page;
}

int32_t PrefixCache::move_to_host(int32_t host_page) {
  const bool held = num_evictable(Tier::kDevice) == 0;
  const EntryId entry = list(Tier::kDevice, held).oldest;
  check(entry != kNone, "no cached page to evict");
  remove_from_list(entry);
  const int32_t page = location(entry).page;
  move(entry, {Tier::kHost, host_page});
  append_to_list(entry);
  return page;
}

int32_t PrefixCache::move_to_device(EntryId entry, int32_t page) {
  const Location old = location(entry);
  check(old.tier == Tier::kHost && is_pinned(entry), "a page of the host moves without a pin");
  move(entry, {Tier::kDevice, page});
  return old.page;
}

// The holder of `page` pins the entry that moves there.
int32_t PrefixCache::adopt(EntryId entry, int32_t page) {
  check(!contains(page), "page cached twice");
  pin(entry);
  return move_to_device(entry, page);
}

// REQUIRES: the entry is in no list.
void PrefixCache::place(EntryId id, Location to) {
  Location& at = entries_[id].location;
  if (at.page != kNone) {
    if (at.tier == Tier::kDevice) entry_of_[at.page] = kNone;
    --num_entries_[index_of(at.tier)];
  }
  at = to;
  if (at.tier == Tier::kDevice) entry_of_[at.page] = id;
  ++num_entries_[index_of(at.tier)];
}

void PrefixCache::move(EntryId id, Location to) {
  const Entry& entry = entries_[id];
  const Tier from = entry.location.tier;
  place(id, to);
  announce(id);
  if (listener_) listener_->on_removed(entry.root->first, entry.hash, from);
}

void PrefixCache::announce(EntryId id) {
  if (listener_ == nullptr) return;
  Entry& entry = entries_[id];
  const uint64_t parent_hash = entry.parent == kNone ? 0 : entries_[entry.parent].hash;
  entry.hash =
      listener_->on_stored(entry.root->first, parent_hash, tokens_of(id), entry.location.tier);
}

std::span<const int32_t> PrefixCache::tokens_of(EntryId entry) const {
  return tokens_of_page(tokens_, static_cast<size_t>(entry));
}

size_t PrefixCache::bucket_of(uint64_t parent_serial, std::span<const int32_t> tokens) const {
  ++num_hashes_;
  const absl::Span<const int32_t> hashable(tokens.data(), tokens.size());
  return absl::HashOf(parent_serial, hashable) % buckets_.size();
}

EntryId PrefixCache::find_child(uint64_t parent_serial, std::span<const int32_t> tokens) const {
  EntryId entry = buckets_[bucket_of(parent_serial, tokens)];
  while (entry != kNone && (entries_[entry].parent_serial != parent_serial ||
                            !std::ranges::equal(tokens_of(entry), tokens))) {
    entry = entries_[entry].next_in_bucket;
  }
  return entry;
}

EntryId PrefixCache::add(int32_t page, EntryId parent, Roots::iterator root,
                         std::span<const int32_t> tokens) {
  check(!contains(page), "page cached twice");
  check(!unused_.empty(), "more cached pages than pages");
  const EntryId id = unused_.back();
  unused_.pop_back();
  std::ranges::copy(tokens, tokens_.begin() + static_cast<int64_t>(id) * kPageSize);
  Entry& entry = entries_[id];
  entry.serial = ++last_serial_;
  entry.parent = parent;
  entry.root = root;
  entry.num_pins = 1;
  place(id, {Tier::kDevice, page});
  salts_.add_page(root->second.salt);
  if (parent == kNone) {
    entry.parent_serial = root->second.serial;
    ++root->second.num_children;
  } else {
    entry.parent_serial = entries_[parent].serial;
    ++entries_[parent].num_children;
    pin(parent);
  }
  EntryId& first = buckets_[bucket_of(entry.parent_serial, tokens)];
  entry.next_in_bucket = first;
  first = id;
  announce(id);
  return id;
}

void PrefixCache::remove_from_bucket(EntryId entry) {
  EntryId* link = &buckets_[bucket_of(entries_[entry].parent_serial, tokens_of(entry))];
  while (*link != entry) link = &entries_[*link].next_in_bucket;
  *link = entries_[entry].next_in_bucket;
}

void PrefixCache::append_to_list(EntryId entry) {
  List& to = list_of(entry);
  entries_[entry].older = to.newest;
  entries_[entry].newer = kNone;
  (to.newest == kNone ? to.oldest : entries_[to.newest].newer) = entry;
  to.newest = entry;
  ++to.size;
}

void PrefixCache::remove_from_list(EntryId id) {
  const Entry& entry = entries_[id];
  List& from = list_of(id);
  (entry.older == kNone ? from.oldest : entries_[entry.older].newer) = entry.newer;
  (entry.newer == kNone ? from.newest : entries_[entry.newer].older) = entry.older;
  --from.size;
}

}  // namespace pbserve::engine
