// What one call feeds the network besides hidden states: device views, owned by the caller.
#pragma once

#include "kernels/core/tensor.h"

namespace pbserve::models {

// One entry per row of the hidden states.
struct RowInput {
  kernels::Tensor positions;  // [T] int32, absolute
  kernels::Tensor slots;      // [T] int64: where the row's K/V go; -1 nowhere
};

// One layer's pages.
struct KvPages {
  kernels::Tensor k;  // [num_pages, Hkv, kPageSize, D]
  kernels::Tensor v;  // [num_pages, Hkv, kPageSize, D]
};

}  // namespace pbserve::models
