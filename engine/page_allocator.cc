#include "engine/page_allocator.h"

#include "kernels/core/check.h"

namespace pbserve::engine {

PageAllocator::PageAllocator(int32_t num_pages) : num_refs_(num_pages, 0), free_(num_pages) {
  for (int32_t i = 0; i < num_pages; ++i) free_[i] = num_pages - 1 - i;  // page 0 goes first
}

int32_t PageAllocator::take(RowEnd from) {
  check(!free_.empty(), "no free page");
  const int32_t page = from == RowEnd::kBack ? free_.back() : free_.front();
  from == RowEnd::kBack ? free_.pop_back() : free_.pop_front();
  num_refs_[page] = 1;
  return page;
}

void PageAllocator::add_ref(int32_t page) {
  check(num_refs_[page] > 0, "reference to a free page");
  ++num_refs_[page];
}

int32_t PageAllocator::drop_ref(int32_t page, RowEnd to) {
  check(num_refs_[page] > 0, "page freed twice");
  if (--num_refs_[page] > 0) return num_refs_[page];
  to == RowEnd::kBack ? free_.push_back(page) : free_.push_front(page);
  return 0;
}

void PageAllocator::check_integrity() const {
  std::vector<bool> is_free(num_refs_.size(), false);
  for (const int32_t page : free_) {
    check(!is_free[page], "a page is twice in the free list");
    check_eq(num_refs_[page], 0, "a page of the free list is referenced");
    is_free[page] = true;
  }
  for (int32_t page = 0; page < num_pages(); ++page) {
    check(is_free[page] || num_refs_[page] > 0, "a page is neither free nor referenced");
  }
}

}  // namespace pbserve::engine
