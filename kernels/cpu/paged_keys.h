// The keys and values of one sequence, read or written through its block table.
#pragma once

#include <cstdint>

#include "kernels/core/tensor.h"
#include "kernels/ops/kv_pages.h"

namespace pbserve::kernels::cpu {

template <class T>
class PagedKeys {
 public:
  // `table` names a page for every kPageSize positions that are used, and may hold anything after.
  PagedKeys(const Tensor& k_pages, const Tensor& v_pages, const int32_t* table)
      : k_(k_pages.as<T>()),
        v_(v_pages.as<T>()),
        table_(table),
        page_stride_(k_pages.stride[0]),
        head_stride_(k_pages.stride[1]) {}

  int64_t page(int64_t page_idx) const { return table_[page_idx]; }

  // [kPageSize, D] of one key head.
  T* k(int64_t page_idx, int64_t kv_head) const { return k_ + offset(page_idx, kv_head); }
  T* v(int64_t page_idx, int64_t kv_head) const { return v_ + offset(page_idx, kv_head); }

 private:
  int64_t offset(int64_t page_idx, int64_t kv_head) const {
    return table_[page_idx] * page_stride_ + kv_head * head_stride_;
  }

  T* k_;
  T* v_;
  const int32_t* table_;
  int64_t page_stride_;
  int64_t head_stride_;
};

}  // namespace pbserve::kernels::cpu
