// What one call feeds the network besides hidden states: device views, owned by the caller.
#pragma once

#include "kernels/core/tensor.h"
#include "kernels/ops/kv_pages.h"

namespace pbserve::models {

// One entry per row of the hidden states.
struct RowInput {
  kernels::Tensor positions;  // [T] int32, absolute
  kernels::Tensor slots;      // [T] int64: where the row's K/V go; -1 nowhere
};

using kernels::KvPages;  // one layer's

}  // namespace pbserve::models
