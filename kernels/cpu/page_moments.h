// The mean and the variance of a page's keys, as PBS pools them: summed in float32 in the order of
// the page, each rounded once. Deviations are taken from the page's first key, because means may be
// far larger than they are.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cpu/transpose.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/ops/kv_pages.h"

namespace pbserve::kernels::cpu {

template <class T>
void write_page_moments(const KvPages& pages, int64_t page, int64_t kv_head) {
  const int64_t dim = pages.k.dim(3);
  const T* keys = pages.k.at(page).at(kv_head).template as<T>();
  T* mean = pages.k_mean.at(page).template as<T>() + kv_head * dim;
  T* var = pages.k_var.at(page).template as<T>() + kv_head * dim;
  constexpr float kShare = 1.f / kPageSize;
  for (int64_t d = 0; d < dim; d += kLanes) {
    const Vec first = load(keys + d);
    Vec total = {}, deviation = {}, square = {};
    for (int64_t i = 0; i < kPageSize; ++i) {
      const Vec key = load(keys + i * dim + d);
      const Vec off = key - first;
      total += key;
      deviation += off;
      square += off * off;
    }
    const Vec mean_deviation = deviation * kShare;
    store(mean + d, total * kShare);
    store(var + d, max(square * kShare - mean_deviation * mean_deviation, Vec{}));
  }
}

// Of every page the key that comes first: [num_pages, Hkv, D].
inline Tensor first_keys(const KvPages& pages) {
  Tensor view = pages.k;
  view.rank = 3;
  view.shape[2] = pages.k.shape[3];
  view.stride[2] = pages.k.stride[3];
  return view;
}

// What `per_page` [num_pages, Hkv, D] has of the pages table[0, count), as the columns of a matrix
// product: columns[d, j].
template <class T>
void load_per_page(float* columns, int64_t ld, const Tensor& per_page, int64_t kv_head,
                   const int32_t* table, int64_t count) {
  const int64_t dim = per_page.dim(2);
  thread_local std::vector<T> rows;
  rows.resize(static_cast<size_t>(count * dim));
  for (int64_t j = 0; j < count; ++j) {
    const T* of_page = per_page.at(table[j]).at(kv_head).template as<T>();
    std::copy_n(of_page, dim, rows.data() + j * dim);
  }
  transpose(columns, ld, rows.data(), dim, count, dim);
}

}  // namespace pbserve::kernels::cpu
