// What q and the pages of an attention operation have in common.
#pragma once

#include "kernels/ops/kv_pages.h"
#include "kernels/ops/tensor_check.h"

namespace pbserve::kernels {

struct HeadShape {
  DType dtype;
  int64_t num_q_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
};

// q [T, Hq, D] and both page tensors [num_pages, Hkv, P, D].
HeadShape check_q_and_pages(const Tensor& q, const Tensor& k_pages, const Tensor& v_pages);

}  // namespace pbserve::kernels
