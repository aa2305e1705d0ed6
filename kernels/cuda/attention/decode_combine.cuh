// Merges the chunks of the rows that have several. A block is one head of one row; its threads are
// groups that each take every kNumGroups-th chunk, summed up in the groups' order.
#pragma once

#include "kernels/cuda/attention/paged_decode.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/softmax.cuh"

namespace pbserve::kernels::cuda {

inline constexpr int kCombineThreads = 128;

// What each chunk's sums are to be multiplied by. All lanes of one warp.
__device__ inline void chunk_weights(float (&weights)[kMaxChunks], const float2* states,
                                     int num_chunks) {
  constexpr int kPerLane = kMaxChunks / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  float2 state[kPerLane];
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int chunk = lane + i * kWarpSize;
    state[i] = chunk < num_chunks ? states[chunk] : float2{-INFINITY, 0.f};
    top = fmaxf(top, state[i].x);
  }
  top = warp_reduce(top, Max());
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    state[i].x = fast_exp2(state[i].x - top);
    sum += state[i].x * state[i].y;
  }
  const float share = 1.f / warp_reduce(sum, Sum());
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) weights[lane + i * kWarpSize] = state[i].x * share;
}

template <int kHeadDim>
__global__ void __launch_bounds__(kCombineThreads)
    decode_combine_kernel(const DecodeParams params) {
  constexpr int kGroupThreads = kHeadDim / 4;
  constexpr int kNumGroups = kCombineThreads / kGroupThreads;
  const int64_t row_head = blockIdx.x;
  const int32_t context_len = params.context_lens[row_head / params.num_q_heads];
  const int num_chunks = split_context(context_len).num_chunks;
  if (num_chunks == 1) return;  // written by the first kernel

  const int group = threadIdx.x / kGroupThreads;
  const int column = threadIdx.x % kGroupThreads * 4;
  const float* partials = params.partials + row_head * kMaxChunks * kHeadDim + column;
  float values[kMaxChunks / kNumGroups][4] = {};  // all reads are under way before the first use
#pragma unroll
  for (int i = 0; i < kMaxChunks / kNumGroups; ++i) {
    const int chunk = group + i * kNumGroups;
    if (chunk < num_chunks) load(values[i], partials + chunk * kHeadDim);
  }

  __shared__ float weights[kMaxChunks];
  __shared__ alignas(16) float group_sums[kNumGroups][kHeadDim];
  if (threadIdx.x < kWarpSize) {
    chunk_weights(weights, params.states + row_head * kMaxChunks, num_chunks);
  }
  __syncthreads();
  float sum[4] = {};
#pragma unroll
  for (int i = 0; i < kMaxChunks / kNumGroups; ++i) {
    const int chunk = group + i * kNumGroups;
    if (chunk >= num_chunks) break;
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] += weights[chunk] * values[i][j];
  }
  store(&group_sums[group][column], sum);
  __syncthreads();
  if (group > 0) return;
#pragma unroll
  for (int other = 1; other < kNumGroups; ++other) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += group_sums[other][column + i];
  }
  store(params.out + row_head * kHeadDim + column, sum);
}

template <int kHeadDim>
void launch_decode_combine(const DecodeParams& params, cudaStream_t stream) {
  const int num_blocks = params.num_rows * params.num_q_heads;
  decode_combine_kernel<kHeadDim><<<num_blocks, kCombineThreads, 0, stream>>>(params);
  check_launch("decode_attention: combine");
}

}  // namespace pbserve::kernels::cuda
