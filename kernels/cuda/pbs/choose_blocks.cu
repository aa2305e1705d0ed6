// The second half of pbs_select: from the groups' masses to a weight per candidate block, from the
// weights to the bits of the mask. A block of threads works one query block of one head.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/scratch.h"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

struct Shared {
  SoftmaxState slices[kWarps];      // of the only group, where there is but one
  float log_sums[kQueryGroupsMax];  // log2 of a group's masses over all candidates
  uint64_t partials[2][3][kWarps];  // of block_sums
  uint32_t counts[kWarps];
  int sink;  // the permuted block that holds token 0
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

// The mean over the query groups of what each gives to a block; the bits of a float that is not
// negative and below 2.
__device__ __forceinline__ void weigh(uint32_t* weights, const Shared& shared,
                                      const SelectParams& p, const float* log_masses,
                                      int num_groups, int count) {
  const float share = 1.f / static_cast<float>(num_groups);
  for (int j = threadIdx.x; j < count; j += kThreads) {
    float weight = 0.f;
    for (int m = 0; m < num_groups; ++m) {
      const float log_mass = log_masses[int64_t{m} * p.num_padded_candidates + j];
      weight += fast_exp2(log_mass - shared.log_sums[m]);
    }
    weights[j] = __float_as_uint(weight * share);
  }
  __syncthreads();
}

// The weight in units of 2^-40, rounded down.
__device__ __forceinline__ uint64_t mass_of(uint32_t weight) {
  const int exponent = static_cast<int>(weight >> 23);  // of a normal number m 2^(exponent - 150)
  if (exponent < 87) return 0;                          // below 2^-40; a shift stays below 24
  const uint64_t mantissa = (weight & 0x7fffffu) | 0x800000u;
  return exponent >= 110 ? mantissa << (exponent - 110) : mantissa >> (110 - exponent);
}

// Sums over the block, given to all threads; each below 2^42. `round` alternates between calls, so
// that one barrier does.
template <int kCount>
__device__ __forceinline__ void block_sums(uint64_t (&sums)[kCount], Shared& shared, int round) {
  constexpr uint32_t kLow = (1u << 21) - 1;  // 32 of them fit 32 bits
  uint64_t(&partials)[3][kWarps] = shared.partials[round % 2];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const uint32_t low = __reduce_add_sync(kFullWarp, static_cast<uint32_t>(sums[i]) & kLow);
    const uint32_t high = __reduce_add_sync(kFullWarp, static_cast<uint32_t>(sums[i] >> 21));
    if (threadIdx.x % 32 == 0) partials[i][threadIdx.x / 32] = (uint64_t{high} << 21) + low;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    sums[i] = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sums[i] += partials[i][warp];
  }
}

// What is taken: weights above `bound`, and the first num_ties blocks of those equal to it.
struct Choice {
  uint32_t bound;
  uint32_t num_ties;
};
constexpr uint32_t kNoLimit = ~0u;

// The bound is the lightest weight that the heaviest-first walk takes: the largest value w with
// mass(weights >= w) >= target. It is found two bits at a time, from the top.
__device__ __forceinline__ Choice choose_top_p(const uint32_t* weights, Shared& shared,
                                               uint64_t target, int count) {
  uint32_t bound = 0;
  int round = 0;
  for (int shift = 28; shift >= 0; shift -= 2, ++round) {  // weights are below 2: bits 31, 30 clear
    uint64_t masses[3] = {};
    for (int j = threadIdx.x; j < count; j += kThreads) {
      const uint32_t weight = weights[j];
      const uint64_t mass = mass_of(weight);
#pragma unroll
      for (uint32_t digit = 1; digit < 4; ++digit) {
        if (weight >= bound + (digit << shift)) masses[digit - 1] += mass;
      }
    }
    block_sums(masses, shared, round);
    const uint32_t digit = (masses[0] >= target) + (masses[1] >= target) + (masses[2] >= target);
    bound += digit << shift;
  }
  // If all weights together fall short of the target, the bound is 0 and all blocks are taken.
  uint64_t above[1] = {};
  for (int j = threadIdx.x; j < count; j += kThreads) {
    if (weights[j] > bound) above[0] += mass_of(weights[j]);
  }
  block_sums(above, shared, round);
  const uint64_t mass = mass_of(bound);
  if (mass == 0) return {bound, kNoLimit};
  return {bound, static_cast<uint32_t>((target - above[0] + mass - 1) / mass)};
}

__device__ __forceinline__ Choice choose_max_ratio(const uint32_t* weights, Shared& shared,
                                                   float threshold, int count) {
  uint32_t most = 0;
  for (int j = threadIdx.x; j < count; j += kThreads) most = max(most, weights[j]);
  most = block_reduce<kWarps>(most, Max(), shared.counts);
  return {__float_as_uint(threshold * __uint_as_float(most)), kNoLimit};
}

// Writes the row of the mask; ties below a word are counted first. Returns this warp's blocks.
__device__ __forceinline__ uint32_t write_mask(uint32_t* words, const uint32_t* weights,
                                               uint32_t* ties_before, int sink, Choice choice,
                                               int num_words, int count) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (choice.num_ties != kNoLimit) {
    for (int word = warp; word < num_words; word += kWarps) {
      const int j = word * 32 + lane;
      const bool ties = j < count && weights[j] == choice.bound;
      const uint32_t bits = __ballot_sync(kFullWarp, ties);
      if (lane == 0) ties_before[word] = __popc(bits);
    }
    __syncthreads();
    if (warp == 0) {
      uint32_t before = 0;
      for (int word = lane; word - lane < num_words; word += 32) {
        const uint32_t ties = word < num_words ? ties_before[word] : 0;
        const uint32_t below = warp_sum_before(ties);
        if (word < num_words) ties_before[word] = before + below;
        before += __shfl_sync(kFullWarp, below + ties, 31);
      }
    }
    __syncthreads();
  }
  uint32_t num_taken = 0;
  for (int word = warp; word < num_words; word += kWarps) {
    const int j = word * 32 + lane;
    const uint32_t weight = j < count ? weights[j] : 0;
    const bool ties = j < count && weight == choice.bound;
    const uint32_t tie_bits = __ballot_sync(kFullWarp, ties);
    bool taken = j < count && (weight > choice.bound || j == sink);
    if (ties) {
      const uint32_t rank = choice.num_ties == kNoLimit
                                ? 0
                                : ties_before[word] + __popc(tie_bits & ((1u << lane) - 1));
      taken = taken || rank < choice.num_ties;
    }
    const uint32_t bits = __ballot_sync(kFullWarp, taken);
    if (lane == 0) words[word] = bits;
    num_taken += __popc(bits);
  }
  return num_taken;
}

// Block (query block, head). Shared memory: a weight per candidate, a count per word of the mask.
__global__ void __launch_bounds__(kThreads)
    choose_blocks_kernel(const __grid_constant__ SelectParams p) {
  extern __shared__ uint32_t weights[];
  __shared__ Shared shared;
  const int block = blockIdx.x;
  const int head = blockIdx.y;
  const int kv_head = head / p.group;
  const int count = num_candidates_of(p, block);
  const int num_rows = num_rows_of(p, block);
  const int group_len = kPbsBlock / p.num_groups;
  const int num_groups = (num_rows + group_len - 1) / group_len;
  uint32_t* words = p.mask + (head * p.mask_blocks + p.first_block + block) * p.num_mask_words;
  const int num_own = p.span_block + p.first_block + block - count + 1;

  uint32_t num_taken = 0;
  if (count == 0) {
    for (int word = threadIdx.x; word < p.num_mask_words; word += kThreads) words[word] = 0;
  } else {
    const int64_t row = (int64_t{kv_head} * p.num_blocks + block) * p.group + head % p.group;
    const float* log_masses = p.log_masses + row * p.num_groups * int64_t{p.num_padded_candidates};
    const uint8_t* order = p.order + kv_head * p.plan_len;
    for (int place = threadIdx.x; place < p.segment_blocks * kPbsBlock; place += kThreads) {
      if (order[place] == 0) shared.sink = place / kPbsBlock;
    }
    sum_groups(shared, p, log_masses, num_groups, count);
    weigh(weights, shared, p, log_masses, num_groups, count);
    Choice choice{0, kNoLimit};
    if (p.selector == PbsSelector::kMaxRatio) {
      choice = choose_max_ratio(weights, shared, p.threshold, count);
    } else if (p.target_mass != ~uint64_t{0}) {
      choice = choose_top_p(weights, shared, p.target_mass, count);
    }
    num_taken = write_mask(words, weights, weights + p.num_padded_candidates, shared.sink, choice,
                           p.num_mask_words, count);
  }
  if (threadIdx.x % 32 == 0) shared.counts[threadIdx.x / 32] = num_taken;
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned long long num_attended = num_own;
    for (int warp = 0; warp < kWarps; ++warp) num_attended += shared.counts[warp];
    atomicAdd(p.num_selected, num_attended);
  }
}

}  // namespace

void choose_blocks(const SelectParams& params, cudaStream_t stream) {
  const int shared_bytes = (params.num_padded_candidates + params.num_mask_words) * 4;
  check_cuda(cudaFuncSetAttribute(choose_blocks_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes),
             "pbs_select: shared memory");
  const dim3 grid(params.num_blocks, params.num_q_heads);
  choose_blocks_kernel<<<grid, kThreads, shared_bytes, stream>>>(params);
  check_launch("pbs_select");
}

}  // namespace pbserve::kernels::cuda
