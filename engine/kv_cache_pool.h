// KvCachePool: every page of the KV cache: device memory, reference counts, prefix index. A page is
// in one of three states: free, used (a request holds it) or cached (the prefix cache alone does).
// Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/block_table.h"
#include "engine/page_allocator.h"
#include "engine/prefix_cache.h"
#include "kernels/core/buffer.h"
#include "models/forward_input.h"

namespace pbserve::engine {

struct KvCacheShape {
  int64_t num_layers = 1;
  int64_t num_kv_heads = 1;
  int64_t head_dim = 1;
  kernels::DType dtype = kernels::DType::kBF16;

  int64_t page_bytes() const;  // K, V and the keys' moments of one page, all layers
};

enum class FreedPages : uint8_t {
  kKeep,    // as the last owner left them
  kPoison,  // filled with NaN, so that a read of a stale page shows (CPU only)
};

class KvCachePool {
 public:
  // kInvalidArgument if num_pages is out of range, kResourceExhausted if the memory is.
  static absl::StatusOr<std::unique_ptr<KvCachePool>> create(
      kernels::Device device, const KvCacheShape& shape, int64_t num_pages,
      FreedPages freed_pages = FreedPages::kKeep);
  ~KvCachePool();  // REQUIRES: all BlockTables of the pool are gone
  KvCachePool(const KvCachePool&) = delete;
  KvCachePool& operator=(const KvCachePool&) = delete;

  // Tells `listener`, which outlives the pool, of the prefix cache. REQUIRES: nothing is cached.
  void set_listener(CacheListener* listener) { cache_.set_listener(listener); }

  // Appends `num_pages` pages, evicting cached ones where the free ones do not suffice. All or
  // nothing: false, and nothing changes, if num_available() < num_pages.
  [[nodiscard]] bool allocate(BlockTable& table, int32_t num_pages);

  // Appends the cached pages that `tokens` begins with and returns their number. The caller cuts
  // `tokens` so that something is left to compute, and truncates the table to what the prefill may
  // use. `root` says how the K/V were made and for whom. REQUIRES: the table is empty.
  int32_t lookup(std::string_view root, std::span<const int32_t> tokens, BlockTable& table);

  // What lookup would find, taking nothing.
  int32_t num_pages_found(std::string_view root, std::span<const int32_t> tokens) const;

  // Registers the table's first `num_pages` pages, whose K/V are complete and hold the beginning of
  // `tokens`. Cheap to repeat: it goes on where the last call for this table stopped.
  // REQUIRES: the same root, and the same tokens, in all calls for one table.
  void insert(std::string_view root, std::span<const int32_t> tokens, BlockTable& table,
              int32_t num_pages);

  // This layer's pages, all of them.
  models::KvPages layer(int64_t index) const;

  int32_t num_pages() const { return allocator_.num_pages(); }
  int32_t num_free() const { return allocator_.num_free(); }
  int32_t num_used() const { return num_used_; }
  int32_t num_cached() const { return num_pages() - num_free() - num_used(); }
  int32_t num_available() const { return num_free() + cache_.num_evictable(); }

  // Dies unless free + used + cached = all, and every reference count equals the number of holders:
  // `tables`, all of the pool's tables that hold pages, and the prefix cache.
  void check_integrity(std::span<const BlockTable* const> tables) const;

 private:
  friend class BlockTable;

  KvCachePool(const KvCacheShape& shape, int32_t num_pages, kernels::DeviceBuffer memory,
              FreedPages freed_pages);

  int32_t num_holders(int32_t page) const;  // requests that hold the page
  void release(int32_t page);               // one reference of a request
  void drop_ref(int32_t page);              // of a request or of the prefix cache
  void poison(int32_t page);
  std::byte* moments(int64_t index) const;  // means of layer i at 2 i, variances at 2 i + 1

  KvCacheShape shape_;
  FreedPages freed_pages_;
  // K and V [num_layers, 2, num_pages, Hkv, kPageSize, D], then the mean and the variance of each
  // page's keys [num_layers, 2, num_pages, Hkv, D].
  kernels::DeviceBuffer memory_;
  PageAllocator allocator_;
  PrefixCache cache_;
  int32_t num_used_ = 0;
};

}  // namespace pbserve::engine
