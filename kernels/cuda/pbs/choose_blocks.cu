// The second half of pbs_select: from the groups' masses to a weight per candidate block, from the
// weights to the bits of the mask.

#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/launch_dependent.h"
#include "kernels/cuda/pbs/choose_row.cuh"
#include "kernels/cuda/pbs/scratch.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// The row of the mask of a query block of the batch.
__device__ __forceinline__ uint32_t* mask_row(const SelectParams& p, int block, int head) {
  return p.mask + (head * p.mask_blocks + p.first_block + block) * p.num_mask_words;
}

struct Shared {
  SoftmaxState slices[kWarps];      // of the only group, where there is but one
  float log_sums[kQueryGroupsMax];  // log2 of a group's masses over all candidates
};

__device__ __forceinline__ SoftmaxState merged_over_warp(SoftmaxState state) {
  for (int distance = 16; distance > 0; distance /= 2) {
    state = merged(state, {__shfl_xor_sync(kFullWarp, state.top, distance),
                           __shfl_xor_sync(kFullWarp, state.sum, distance)});
  }
  return state;
}

// One warp's share of a group's log masses: elements first + i step.
__device__ __forceinline__ SoftmaxState sum_masses(const float* log_masses, int first, int step,
                                                   int count) {
  SoftmaxState state{-1e30f, 0.f};  // finite: some lanes have no element
#pragma unroll 4
  for (int j = first; j < count; j += step) {
    const float log_mass = log_masses[j];
    const float top = fmaxf(state.top, log_mass);
    state.sum = state.sum * fast_exp2(state.top - top) + fast_exp2(log_mass - top);
    state.top = top;
  }
  return merged_over_warp(state);
}

// shared.log_sums[m] of the groups m. Several groups: a warp each; one group: all warps.
__device__ __forceinline__ void sum_groups(Shared& shared, const SelectParams& p,
                                           const float* log_masses, int num_groups, int count) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (p.num_groups > 1) {
    for (int m = warp; m < num_groups; m += kWarps) {
      const float* row = log_masses + int64_t{m} * p.num_padded_candidates;
      const SoftmaxState state = sum_masses(row, lane, 32, count);
      if (lane == 0) shared.log_sums[m] = state.top + log2f(state.sum);
    }
  } else {
    const SoftmaxState state = sum_masses(log_masses, threadIdx.x, kThreads, count);
    if (lane == 0) shared.slices[warp] = state;
    __syncthreads();
    if (threadIdx.x == 0) {
      SoftmaxState all = shared.slices[0];
      for (int i = 1; i < kWarps; ++i) all = merged(all, shared.slices[i]);
      shared.log_sums[0] = all.top + log2f(all.sum);
    }
  }
  __syncthreads();
}

// Block (query block, head): the mean over the query groups of what each gives to a candidate.
__global__ void __launch_bounds__(kThreads)
    weigh_masses_kernel(const __grid_constant__ SelectParams p) {
  __shared__ Shared shared;
  const int block = blockIdx.x;
  const int count = num_candidates_of(p, block);
  const int group_len = kPbsBlock / p.num_groups;
  const int num_groups = (num_rows_of(p, block) + group_len - 1) / group_len;
  float* log_masses = masses_of(p, block, blockIdx.y);
  sum_groups(shared, p, log_masses, num_groups, count);
  const float share = 1.f / static_cast<float>(num_groups);
  for (int j = threadIdx.x; j < count; j += kThreads) {
    float weight = 0.f;
    for (int m = 0; m < num_groups; ++m) {
      const float log_mass = log_masses[int64_t{m} * p.num_padded_candidates + j];
      weight += fast_exp2(log_mass - shared.log_sums[m]);
    }
    log_masses[j] = weight * share;
  }
}

template <class Weights>
__device__ __forceinline__ uint32_t choose(const SelectParams& p, const CandidateRow& row,
                                           uint32_t* words) {
  const Weights weights(row);
  return RowChooser<Weights>(p, weights, row).run(words);
}

__device__ __forceinline__ uint32_t choose_in_row(const SelectParams& p, const CandidateRow& row,
                                                  uint32_t* words) {
  const int num_words = row.num_words();
  if (num_words <= 4) return choose<WeightsInRegisters<4>>(p, row, words);
  if (num_words <= 8) return choose<WeightsInRegisters<8>>(p, row, words);
  if (num_words <= 16) return choose<WeightsInRegisters<16>>(p, row, words);
  if (num_words <= 32) return choose<WeightsInRegisters<32>>(p, row, words);
  return choose<WeightsInMemory>(p, row, words);
}

// A warp per (query block, head). In a warp of the scan's own a row took longer than its products.
__global__ void __launch_bounds__(kThreads)
    choose_blocks_kernel(const __grid_constant__ SelectParams p) {
  const int idx = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (idx >= p.num_blocks * p.num_q_heads) return;
  wait_for_earlier_kernels();
  const int block = idx / p.num_q_heads;
  const int head = idx % p.num_q_heads;
  const CandidateRow row(p, block, head);
  const unsigned long long num_taken = choose_in_row(p, row, mask_row(p, block, head));
  if (threadIdx.x % 32 == 0) atomicAdd(p.num_selected, num_taken + num_own_blocks_of(p, block));
}

// A warp per (query block, head).
__global__ void __launch_bounds__(kThreads)
    take_all_blocks_kernel(const __grid_constant__ SelectParams p) {
  const int row = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= p.num_blocks * p.num_q_heads) return;
  const int block = row / p.num_q_heads;
  const int count = num_candidates_of(p, block);
  uint32_t* words = mask_row(p, block, row % p.num_q_heads);
  for (int word = lane; word < p.num_mask_words; word += 32) {
    const int num_bits = min(max(count - word * 32, 0), 32);
    words[word] = num_bits == 32 ? ~0u : (1u << num_bits) - 1;
  }
  const unsigned long long num_taken = count;
  if (lane == 0) atomicAdd(p.num_selected, num_taken + num_own_blocks_of(p, block));
}

int num_row_blocks(const SelectParams& p) { return ceil_div(p.num_blocks * p.num_q_heads, kWarps); }

}  // namespace

void weigh_masses(const SelectParams& params, cudaStream_t stream) {
  weigh_masses_kernel<<<dim3(params.num_blocks, params.num_q_heads), kThreads, 0, stream>>>(params);
  check_launch("pbs_select");
}

void choose_blocks(const SelectParams& params, cudaStream_t stream) {
  launch_dependent(choose_blocks_kernel, dim3(num_row_blocks(params)), kThreads, 0, stream, params,
                   "pbs_select");
}

void take_all_blocks(const SelectParams& params, cudaStream_t stream) {
  take_all_blocks_kernel<<<num_row_blocks(params), kThreads, 0, stream>>>(params);
  check_launch("pbs_select");
}

}  // namespace pbserve::kernels::cuda
