#include "engine/kv_cache_pool.h"

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/ops/rope.h"

namespace pbserve::engine {

using kernels::kPageSize;

namespace {

// K or V of one page in one layer.
int64_t tile_bytes(const KvCacheShape& shape) {
  return shape.num_kv_heads * kPageSize * shape.head_dim *
         static_cast<int64_t>(size_of(shape.dtype));
}

// The mean of its keys, or their variance, in one layer.
int64_t moment_bytes(const KvCacheShape& shape) { return tile_bytes(shape) / kPageSize; }

}  // namespace

int64_t KvCacheShape::page_bytes() const {
  return 2 * num_layers * (tile_bytes(*this) + moment_bytes(*this));
}

absl::StatusOr<std::unique_ptr<KvCachePool>> KvCachePool::create(kernels::Device device,
                                                                 const KvCacheShape& shape,
                                                                 int64_t num_pages,
                                                                 FreedPages freed_pages) {
  constexpr int64_t kNumPagesMax = std::numeric_limits<int32_t>::max() / kPageSize;
  if (num_pages < 1 || num_pages > kNumPagesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV cache of ", num_pages, " pages: must be in [1, ", kNumPagesMax, "]"));
  }
  if (freed_pages == FreedPages::kPoison && device.kind != kernels::DeviceKind::kCpu) {
    return absl::InvalidArgumentError("freed KV pages are poisoned on the CPU only");
  }
  ASSIGN_OR_RETURN(
      kernels::DeviceBuffer memory,
      kernels::DeviceBuffer::create(device, static_cast<size_t>(num_pages * shape.page_bytes())));
  return std::unique_ptr<KvCachePool>(
      new KvCachePool(shape, static_cast<int32_t>(num_pages), std::move(memory), freed_pages));
}

KvCachePool::KvCachePool(const KvCacheShape& shape, int32_t num_pages, kernels::DeviceBuffer memory,
                         FreedPages freed_pages)
    : shape_(shape),
      freed_pages_(freed_pages),
      memory_(std::move(memory)),
      allocator_(num_pages),
      cache_(num_pages) {
  if (freed_pages_ == FreedPages::kKeep) return;
  for (int32_t page = 0; page < num_pages; ++page) poison(page);
}

KvCachePool::~KvCachePool() { check_eq(num_used_, 0, "pages still held when the pool goes"); }

bool KvCachePool::allocate(BlockTable& table, int32_t num_pages) {
  check(num_pages >= 0, "negative number of pages");
  if (num_available() < num_pages) return false;
  while (num_free() < num_pages) drop_ref(cache_.evict());
  table.pool_ = this;
  for (int32_t i = 0; i < num_pages; ++i) table.pages_.push_back(allocator_.take());
  num_used_ += num_pages;
  return true;
}

int32_t KvCachePool::lookup(std::string_view root, std::span<const int32_t> tokens,
                            BlockTable& table) {
  check_eq(table.num_pages(), 0, "lookup into a table that has pages");
  const std::vector<int32_t> chain = cache_.find(root, tokens);
  table.pool_ = this;
  for (const int32_t page : chain) {
    if (num_holders(page) == 0) ++num_used_;
    allocator_.add_ref(page);
    cache_.pin(page);
    table.pages_.push_back(page);
  }
  table.cursor_ = cache_.cursor_at(chain);
  return static_cast<int32_t>(chain.size());
}

int32_t KvCachePool::num_pages_found(std::string_view root, std::span<const int32_t> tokens) const {
  return static_cast<int32_t>(cache_.find(root, tokens).size());
}

void KvCachePool::insert(std::string_view root, std::span<const int32_t> tokens, BlockTable& table,
                         int32_t num_pages) {
  check(num_pages <= table.num_pages(), "more pages to cache than the table has");
  const auto pages = table.pages().first(num_pages);
  for (const int32_t page : cache_.insert(root, tokens, pages, table.cursor_)) {
    allocator_.add_ref(page);  // the cache's own
  }
}

models::KvPages KvCachePool::layer(int64_t index) const {
  check(0 <= index && index < shape_.num_layers, "layer out of range");
  const int64_t half_bytes = num_pages() * tile_bytes(shape_);
  std::byte* k = memory_.data() + 2 * index * half_bytes;
  const auto view = [&](std::byte* data) {
    return kernels::Tensor(data, shape_.dtype,
                           {num_pages(), shape_.num_kv_heads, kPageSize, shape_.head_dim});
  };
  const auto moments_view = [&](std::byte* data) {
    return kernels::Tensor(data, shape_.dtype, {num_pages(), shape_.num_kv_heads, shape_.head_dim});
  };
  return {.k = view(k),
          .v = view(k + half_bytes),
          .k_mean = moments_view(moments(2 * index)),
          .k_var = moments_view(moments(2 * index + 1))};
}

std::byte* KvCachePool::moments(int64_t index) const {
  const int64_t tiles = 2 * shape_.num_layers * num_pages() * tile_bytes(shape_);
  return memory_.data() + tiles + index * num_pages() * moment_bytes(shape_);
}

int32_t KvCachePool::num_holders(int32_t page) const {
  return allocator_.num_refs(page) - (cache_.contains(page) ? 1 : 0);
}

void KvCachePool::release(int32_t page) {
  if (num_holders(page) == 1) --num_used_;
  if (cache_.contains(page)) cache_.unpin(page);
  drop_ref(page);
}

void KvCachePool::drop_ref(int32_t page) {
  if (allocator_.drop_ref(page) == 0 && freed_pages_ == FreedPages::kPoison) poison(page);
}

void KvCachePool::poison(int32_t page) {
  constexpr int kNanByte = 0xff;  // all bits set is a NaN in every float type
  const int64_t num_bytes = tile_bytes(shape_);
  for (int64_t i = 0; i < 2 * shape_.num_layers; ++i) {
    std::memset(memory_.data() + (i * num_pages() + page) * num_bytes, kNanByte, num_bytes);
    std::memset(moments(i) + page * moment_bytes(shape_), kNanByte, moment_bytes(shape_));
  }
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
  cache_.check_integrity(num_holders);
}

}  // namespace pbserve::engine
