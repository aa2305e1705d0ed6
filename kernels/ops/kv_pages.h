// One layer's pages of the KV cache, as operations see them.
#pragma once

#include "kernels/core/tensor.h"

namespace pbserve::kernels {

// Tokens per page of the KV cache = tokens per PBS block.
inline constexpr int kPageSize = 128;

struct KvPages {
  Tensor k;  // [num_pages, Hkv, P, D]
  Tensor v;  // [num_pages, Hkv, P, D]
  // [num_pages, Hkv, D]: the mean of a page's keys and, element by element, their variance, in the
  // dtype of the pages; set for pages that PBS has ordered or pooled (pbs.h), else anything.
  Tensor k_mean;
  Tensor k_var;
};

}  // namespace pbserve::kernels
