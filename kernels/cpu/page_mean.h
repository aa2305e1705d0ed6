// The mean key of a page, as PBS pools it: summed in float32 in the order of the page, rounded
// once.
#pragma once

#include "kernels/cpu/vec_math.h"
#include "kernels/ops/kv_pages.h"

namespace pbserve::kernels::cpu {

template <class T>
void write_page_mean(const KvPages& pages, int64_t page, int64_t kv_head) {
  const int64_t dim = pages.k.dim(3);
  const T* keys = pages.k.at(page).at(kv_head).template as<T>();
  T* mean = pages.k_mean.at(page).template as<T>() + kv_head * dim;
  for (int64_t d = 0; d < dim; d += kLanes) {
    Vec total = {};
    for (int64_t i = 0; i < kPageSize; ++i) total += load(keys + i * dim + d);
    store(mean + d, total * (1.f / kPageSize));
  }
}

}  // namespace pbserve::kernels::cpu
