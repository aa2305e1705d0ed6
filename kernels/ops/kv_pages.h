// One layer's pages of the KV cache, as operations see them.
#pragma once

#include "kernels/core/tensor.h"

namespace pbserve::kernels {

// Tokens per page of the KV cache = tokens per PBS block.
inline constexpr int kPageSize = 128;

struct KvPages {
  Tensor k;       // [num_pages, Hkv, P, D]
  Tensor v;       // [num_pages, Hkv, P, D]
  Tensor k_mean;  // [num_pages, Hkv, D]: the mean of a page's keys, in the dtype of the pages;
                  // set for pages that PBS has ordered or pooled (pbs.h), else anything
};

}  // namespace pbserve::kernels
