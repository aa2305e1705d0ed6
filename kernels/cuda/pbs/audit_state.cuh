// Sums of the masses that pbs_audit tells apart.
#pragma once

#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/audit_params.h"

namespace pbserve::kernels::cuda {

__device__ __forceinline__ AuditState no_mass() {
  return {.top = -__int_as_float(0x7f800000), .taken = 0.f, .missed = 0.f};
}

// The base of logits whose largest is `top`, where there may be none.
__device__ __forceinline__ float base_of(float top) { return top == no_mass().top ? 0.f : top; }

// Commutative, bit for bit.
__device__ __forceinline__ AuditState merged(const AuditState& a, const AuditState& b) {
  const float top = fmaxf(a.top, b.top);
  const float a_share = fast_exp2(a.top - base_of(top));
  const float b_share = fast_exp2(b.top - base_of(top));
  return {.top = top,
          .taken = __fadd_rn(__fmul_rn(a.taken, a_share), __fmul_rn(b.taken, b_share)),
          .missed = __fadd_rn(__fmul_rn(a.missed, a_share), __fmul_rn(b.missed, b_share))};
}

}  // namespace pbserve::kernels::cuda
