// BlockTable: the pages of one sequence, in order. Page i holds the tokens [128 i, 128 (i + 1)).
// It owns one reference on each page and gives it back when it is destroyed, so a page leaks only
// with its table. Engine thread only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/page_copies.h"
#include "engine/prefix_cache.h"

namespace pbserve::engine {

class KvCachePool;

class BlockTable {
 public:
  BlockTable() = default;
  BlockTable(BlockTable&& other) noexcept;
  BlockTable& operator=(BlockTable&& other) noexcept;
  ~BlockTable() { clear(); }

  int32_t num_pages() const { return static_cast<int32_t>(pages_.size()); }
  int32_t page(int32_t index) const { return pages_[index]; }
  std::span<const int32_t> pages() const { return pages_; }

  // Gives back the pages from `num_pages` on, the last one first.
  void truncate(int32_t num_pages);
  void clear() { truncate(0); }

 private:
  friend class KvCachePool;

  KvCachePool* pool_ = nullptr;  // whose pages these are; set by the pool, which outlives them
  std::vector<int32_t> pages_;
  CopyTicket ticket_;           // what the pages wait for before they may be used
  PrefixCache::Cursor cursor_;  // how far the pages are registered in the prefix cache
};

}  // namespace pbserve::engine
