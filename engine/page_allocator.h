// PageAllocator: page ids [0, num_pages) and their reference counts. A page is free exactly when
// its count is 0. The free ones wait in a row; the same history gives the same ids. Engine thread
// only.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace pbserve::engine {

// The end of the row of free pages.
enum class RowEnd : uint8_t { kFront, kBack };

class PageAllocator {
 public:
  explicit PageAllocator(int32_t num_pages);

  // A free page, with one reference. The last one freed is at the back: its memory is the warmest.
  // REQUIRES: num_free() > 0.
  int32_t take(RowEnd from = RowEnd::kBack);

  // REQUIRES: the page is not free.
  void add_ref(int32_t page);

  // Returns the references left; at 0 the page is free, at that end of the row. REQUIRES: the page
  // is not free.
  int32_t drop_ref(int32_t page, RowEnd to = RowEnd::kBack);

  int32_t num_refs(int32_t page) const { return num_refs_[page]; }
  int32_t num_pages() const { return static_cast<int32_t>(num_refs_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }

  // Dies unless the free list holds each page of count 0 once, and no other.
  void check_integrity() const;

 private:
  std::vector<int32_t> num_refs_;  // by page
  std::deque<int32_t> free_;
};

}  // namespace pbserve::engine
