// Reductions within a warp and within a block. Each runs in a fixed tree, so a float result depends
// on the values and on the size of the group alone.
#pragma once

namespace pbserve::kernels::cuda {

inline constexpr int kWarpSize = 32;
inline constexpr unsigned kFullWarp = 0xffffffffu;

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

// A NaN beside a number is dropped, as by fmaxf.
struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
  __device__ __forceinline__ int operator()(int a, int b) const { return max(a, b); }
  __device__ __forceinline__ unsigned operator()(unsigned a, unsigned b) const { return max(a, b); }
  __device__ __forceinline__ unsigned long long operator()(unsigned long long a,
                                                           unsigned long long b) const {
    return max(a, b);
  }
};

// The reduction over each aligned group of kWidth lanes, given to all of them. `op` is commutative,
// which makes the butterfly's results equal in every lane, bit for bit. All 32 lanes call it.
template <int kWidth = kWarpSize, class T, class Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
  static_assert(kWidth >= 1 && kWidth <= kWarpSize && (kWidth & (kWidth - 1)) == 0);
#pragma unroll
  for (int step = kWidth / 2; step > 0; step /= 2) {
    value = op(value, __shfl_xor_sync(kFullWarp, value, step));
  }
  return value;
}

// The reduction over a block of kWarps whole warps, given to every thread. `shared` has kWarps
// elements and may be used again as soon as the function returns. All threads call it.
template <int kWarps, class T, class Op>
__device__ __forceinline__ T block_reduce(T value, Op op, T* shared) {
  static_assert(kWarps <= kWarpSize);
  value = warp_reduce(value, op);
  if constexpr (kWarps > 1) {
    if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
    __syncthreads();
    value = shared[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) value = op(value, shared[warp]);
    __syncthreads();
  }
  return value;
}

// Sum of `value` over the lanes below this one.
template <class T>
__device__ __forceinline__ T warp_sum_before(T value) {
  const int lane = threadIdx.x % kWarpSize;
  T sum = value;
#pragma unroll
  for (int step = 1; step < kWarpSize; step *= 2) {
    const T below = __shfl_up_sync(kFullWarp, sum, step);
    if (lane >= step) sum += below;
  }
  return sum - value;
}

}  // namespace pbserve::kernels::cuda
