// What pbs_order and pbs_audit need of plan.scratch.
#pragma once

#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

inline constexpr int64_t kOrderChunksMax = 64;

constexpr int64_t order_scratch_bytes(const PbsPlanShape& shape) {
  const int64_t rows = shape.num_q_heads * kPbsBlock;
  return rows * (kOrderChunksMax * 2 + 1) * static_cast<int64_t>(sizeof(float));
}

constexpr int64_t audit_scratch_bytes(const PbsPlanShape& shape) {
  return order_scratch_bytes(shape);
}

}  // namespace pbserve::kernels::cuda
