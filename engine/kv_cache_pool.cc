#include "engine/kv_cache_pool.h"

#include <algorithm>
#include <limits>
#include <ranges>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/ops/rope.h"

namespace pbserve::engine {

using kernels::kPageSize;

namespace {

// With a host tier an evicted page takes a while to leave, behind all that leave before it: a long
// prompt's need fills the bus for some tenths of a second. Streams that grow take pages which have
// left already: so many are kept, one for each of the usual number of sequences, and no more than
// this part of a small pool.
constexpr int32_t kReservePages = 64;
constexpr int32_t kReserveShare = 16;

int32_t reserve_of(int64_t num_pages, int32_t most) {
  return static_cast<int32_t>(std::min<int64_t>(most, num_pages / kReserveShare));
}

absl::Status check_num_pages(const char* what, int64_t num_pages, int64_t least) {
  constexpr int64_t kNumPagesMax = std::numeric_limits<int32_t>::max() / kPageSize;
  if (least <= num_pages && num_pages <= kNumPagesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " of ", num_pages, " pages: must be in [",
                                                 least, ", ", kNumPagesMax, "]"));
}

absl::Status validate(const KvCacheOptions& options, kernels::Device device) {
  RETURN_IF_ERROR(check_num_pages("KV cache", options.num_pages, 1));
  RETURN_IF_ERROR(check_num_pages("host tier of the KV cache", options.num_host_pages, 0));
  if (device.kind == kernels::DeviceKind::kCpu) return absl::OkStatus();
  if (options.freed_pages == FreedPages::kPoison || options.copies == CopyTiming::kDeferred) {
    return absl::InvalidArgumentError(
        "freed KV pages are poisoned, and copies deferred, on the CPU only");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvCachePool>> KvCachePool::create(const kernels::Stream& compute,
                                                                 const KvCacheShape& shape,
                                                                 const KvCacheOptions& options) {
  RETURN_IF_ERROR(validate(options, compute.device()));
  ASSIGN_OR_RETURN(auto memory, PageMemory::create(compute.device(), shape, options.num_pages,
                                                   options.num_host_pages));
  auto pool = std::unique_ptr<KvCachePool>(new KvCachePool(std::move(memory), options));
  if (options.num_host_pages == 0) return pool;
  ASSIGN_OR_RETURN(
      PageCopies copies,
      PageCopies::create(compute, pool->memory_, options.num_pages, options.num_host_pages,
                         options.copies, options.freed_pages == FreedPages::kPoison));
  pool->copies_.emplace(std::move(copies));
  return pool;
}

absl::StatusOr<std::unique_ptr<KvCachePool>> KvCachePool::create(kernels::Device device,
                                                                 const KvCacheShape& shape,
                                                                 int64_t num_pages,
                                                                 FreedPages freed_pages) {
  const KvCacheOptions options{.num_pages = num_pages, .freed_pages = freed_pages};
  RETURN_IF_ERROR(validate(options, device));
  ASSIGN_OR_RETURN(auto memory, PageMemory::create(device, shape, num_pages, 0));
  return std::unique_ptr<KvCachePool>(new KvCachePool(std::move(memory), options));
}

KvCachePool::KvCachePool(PageMemory memory, const KvCacheOptions& options)
    : freed_pages_(options.freed_pages),
      memory_(std::move(memory)),
      allocator_(static_cast<int32_t>(options.num_pages)),
      host_allocator_(static_cast<int32_t>(options.num_host_pages)),
      cache_(num_pages(), num_host_pages()),
      holds_(cache_),
      max_held_(static_cast<int32_t>(options.max_held_share *
                                     static_cast<double>(num_pages() + num_host_pages()))) {
  if (num_host_pages() > 0) {
    reserve_ = reserve_of(num_pages(), kReservePages);
    host_reserve_ = reserve_of(num_host_pages(), 2 * PageCopies::kBatchPages);
  }
  if (freed_pages_ == FreedPages::kKeep) return;
  for (int32_t page = 0; page < num_pages(); ++page) memory_.poison(page);
}

KvCachePool::~KvCachePool() { check_eq(num_used_, 0, "pages still held when the pool goes"); }

bool KvCachePool::allocate(BlockTable& table, int32_t num_pages, Handover handover) {
  check(num_pages >= 0, "negative number of pages");
  if (num_available() < num_pages) return false;
  if (num_pages > 0) make_room(num_pages + reserve_, host_reserve_);
  table.pool_ = this;
  // What leaves the device goes to the front.
  const RowEnd end = handover == Handover::kNow ? RowEnd::kBack : RowEnd::kFront;
  CopyTicket ticket;
  for (int32_t i = 0; i < num_pages; ++i) {
    table.pages_.push_back(allocator_.take(end));
    if (copies_) ticket.join(copies_->ticket(table.pages_.back()));
  }
  num_used_ += num_pages;
  if (handover == Handover::kLater) {
    table.ticket_.join(ticket);
  } else if (copies_) {
    copies_->hold_back_compute(ticket);
  }
  return true;
}

// Evicts, where it can, until `num_free` pages are free, and keeps so many of the host free.
void KvCachePool::make_room(int32_t num_free, int32_t num_host_free) {
  while (this->num_free() < num_free && num_evictable() > 0) evict(num_host_free);
  if (copies_) copies_->flush();
}

// The page's next owner writes it when the copy has run, whereas the copy waits for the steps that
// wrote it: nobody waits here. So the freed page stands last in the row.
void KvCachePool::evict(int32_t num_host_free) {
  const int32_t host_page = take_host_page(num_host_free);
  if (host_page < 0) {  // not of a held page: num_evictable() counts those that find one
    ++counters_.num_dropped;
    return drop_ref(cache_.evict(Tier::kDevice));
  }
  const int32_t page = cache_.move_to_host(host_page);
  copies_->queue_to_host(page, host_page);
  check_eq(allocator_.drop_ref(page, RowEnd::kFront), 0, "references to an evicted page");
}

// -1 if there is none to be had: no tier, or all of it is held or on its way to the device. The one
// freed first goes first, so that what goes out does not wait for what has just begun to come in;
// some are kept free for that.
int32_t KvCachePool::take_host_page(int32_t num_host_free) {
  if (host_allocator_.num_free() <= num_host_free && cache_.num_evictable(Tier::kHost) > 0) {
    ++counters_.num_dropped;
    host_allocator_.drop_ref(cache_.evict(Tier::kHost));
  }
  return host_allocator_.num_free() > 0 ? host_allocator_.take(RowEnd::kFront) : -1;
}

void KvCachePool::refresh(std::string_view root, std::span<const int32_t> tokens,
                          PrefixMatch& match) const {
  cache_.refresh(root, tokens, match);
}

// The host holds the ends of chains.
int32_t KvCachePool::first_on_host(const PrefixMatch& match, int32_t num_pages) const {
  check(num_pages <= match.num_pages(), "more pages than were found");
  check(num_pages == 0 || cache_.is_live(match.chain[num_pages - 1]), "a match that is stale");
  const auto end = match.chain.begin() + num_pages;
  const auto found = std::partition_point(match.chain.begin(), end, [&](const EntryRef& ref) {
    return cache_.location(ref.entry).tier == Tier::kDevice;
  });
  return static_cast<int32_t>(found - match.chain.begin());
}

// The ancestors of what is pinned are pinned: what is not is an end too.
int32_t KvCachePool::first_unpinned(const PrefixMatch& match, int32_t num_pages) const {
  const auto end = match.chain.begin() + num_pages;
  const auto found = std::partition_point(
      match.chain.begin(), end, [&](const EntryRef& ref) { return cache_.is_pinned(ref.entry); });
  return static_cast<int32_t>(found - match.chain.begin());
}

bool KvCachePool::acquire(const PrefixMatch& match, int32_t num_pages, BlockTable& table) {
  check_eq(table.num_pages(), 0, "cached pages for a table that has pages");
  if (num_available() < num_needed(match, num_pages)) return false;
  const auto chain = std::span(match.chain).first(num_pages);
  const int32_t first_loaded = first_on_host(match, num_pages);
  for (const EntryRef& ref : chain) cache_.pin(ref.entry);
  if (first_loaded < num_pages && num_available() == 0) {
    for (const EntryRef& ref : std::views::reverse(chain)) cache_.drop_pin(ref.entry);
    return false;
  }
  load(chain.subspan(first_loaded));
  table.pool_ = this;
  for (const EntryRef& ref : chain) {
    const int32_t page = cache_.location(ref.entry).page;
    if (num_holders(page) == 0) ++num_used_;
    allocator_.add_ref(page);
    table.pages_.push_back(page);
    if (copies_) table.ticket_.join(copies_->ticket(page));
  }
  table.cursor_ = PrefixCache::cursor_at(match, num_pages);
  counters_.num_device_hits += first_loaded;
  counters_.num_host_hits += num_pages - first_loaded;
  return true;
}

// By batches, so that one comes in while the next one's room is made: each leaves pages of the host
// to those that go out for the next. No more go out than the host has pages free, unless that were
// none at all: of two prompts that swap places in a full host no page is lost.
void KvCachePool::load(std::span<const EntryRef> entries) {
  while (!entries.empty()) {
    auto count = static_cast<int32_t>(std::min<size_t>(entries.size(), PageCopies::kBatchPages));
    int32_t num_kept = num_free() + host_allocator_.num_free();
    if (num_kept == 0) num_kept = cache_.num_evictable(Tier::kHost);
    if (num_kept > 0) count = std::min(count, num_kept);
    count = std::min(count, num_available());  // held pages go out as others come in
    make_room(std::max(count, std::min(count + reserve_, num_kept)), 0);
    for (const EntryRef& ref : entries.first(count)) {
      const int32_t page = allocator_.take(RowEnd::kFront);  // with the reference of the cache
      const int32_t host_page = cache_.move_to_device(ref.entry, page);
      copies_->queue_to_device(host_page, page);
      host_allocator_.drop_ref(host_page);
    }
    copies_->flush();
    entries = entries.subspan(count);
  }
}

bool KvCachePool::is_loaded(const BlockTable& table) {
  return !copies_ || copies_->is_done(table.ticket_);
}

void KvCachePool::hold_back_steps(const BlockTable& table) {
  if (copies_) copies_->hold_back_compute(table.ticket_);
}

void KvCachePool::insert(std::string_view root, std::span<const int32_t> tokens, BlockTable& table,
                         int32_t num_pages) {
  check(num_pages <= table.num_pages(), "more pages to cache than the table has");
  const auto pages = table.pages().first(num_pages);
  const PrefixCache::Inserted inserted = cache_.insert(root, tokens, pages, table.cursor_);
  for (const int32_t page : inserted.pages) allocator_.add_ref(page);  // the cache's own
  for (const int32_t page : inserted.host_pages) host_allocator_.drop_ref(page);
}

TierCounters KvCachePool::counters() const {
  TierCounters counters = counters_;
  if (copies_) {
    counters.num_to_host = copies_->num_to_host();
    counters.num_to_device = copies_->num_to_device();
  }
  return counters;
}

int32_t KvCachePool::num_holders(int32_t page) const {
  return allocator_.num_refs(page) - (cache_.contains(page) ? 1 : 0);
}

void KvCachePool::release(int32_t page) {
  if (num_holders(page) == 1) --num_used_;
  if (cache_.contains(page)) cache_.unpin(page);
  drop_ref(page);
}

// A page that is still being copied goes to the front of the row, and keeps what is in it.
void KvCachePool::drop_ref(int32_t page) {
  const bool is_still = !copies_ || copies_->is_done(copies_->ticket(page));
  const int32_t num_left = allocator_.drop_ref(page, is_still ? RowEnd::kBack : RowEnd::kFront);
  if (num_left == 0 && is_still && freed_pages_ == FreedPages::kPoison) memory_.poison(page);
}

void KvCachePool::check_integrity(std::span<const BlockTable* const> tables) const {
  std::vector<int32_t> num_holders(num_pages(), 0);
  for (const BlockTable* table : tables) {
    for (const int32_t page : table->pages()) ++num_holders[page];
  }
  int32_t num_held = 0;
  int32_t num_cached_alone = 0;
  for (int32_t page = 0; page < num_pages(); ++page) {
    const int32_t num_cache_refs = cache_.contains(page) ? 1 : 0;
    check_eq(allocator_.num_refs(page), num_holders[page] + num_cache_refs, "references to a page");
    if (num_holders[page] > 0) ++num_held;
    if (num_holders[page] == 0 && num_cache_refs > 0) ++num_cached_alone;
  }
  check_eq(num_held, num_used(), "number of used pages");
  check_eq(num_cached_alone, num_cached(), "number of cached pages");
  allocator_.check_integrity();
  cache_.check_integrity(num_holders, holds_.chains());
  std::vector<int32_t> num_host_refs(num_host_pages(), 0);
  for (const int32_t page : cache_.host_pages()) ++num_host_refs[page];
  for (int32_t page = 0; page < num_host_pages(); ++page) {
    check_eq(host_allocator_.num_refs(page), num_host_refs[page], "references to a host page");
  }
  host_allocator_.check_integrity();
}

}  // namespace pbserve::engine
