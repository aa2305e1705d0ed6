// Softmax in base 2 with one special-function instruction per step. Logits come multiplied by
// log2(e), so weights are those of base e.
#pragma once

#include <cuda_runtime.h>

#include <numbers>

namespace pbserve::kernels::cuda {

inline constexpr float kLog2E = std::numbers::log2e_v<float>;

// Within 2 ulp; subnormal results are 0, and so is exp2 of minus infinity.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Within 2^-22 for x in [1/2, 2], else relative.
__device__ __forceinline__ float fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A running softmax: sum = sum of exp2(logit - top), top the largest logit.
struct SoftmaxState {
  float top;
  float sum;

  static __device__ SoftmaxState none() { return {-__int_as_float(0x7f800000), 0.f}; }
};

// Commutative, bit for bit. REQUIRES: at least one has seen a logit.
__device__ __forceinline__ SoftmaxState merged(SoftmaxState a, SoftmaxState b) {
  const float top = fmaxf(a.top, b.top);
  const float first = __fmul_rn(a.sum, fast_exp2(a.top - top));
  return {top, __fadd_rn(first, __fmul_rn(b.sum, fast_exp2(b.top - top)))};
}

}  // namespace pbserve::kernels::cuda
