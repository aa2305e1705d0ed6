// The weights of one query block of one head as its warp has them at hand: lane l those of the
// candidates 32 i + l.
#pragma once

#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {

struct CandidateRow {
  float* sums;         // of weights, a row for each group; REQUIRES: one group or two
  int64_t group_step;  // from the first group's to the second's; 0: there is but one
  float share;         // weight = share times the groups' sum
  int count;
  int first_local;  // candidates from here on are taken always
  int num_sinks;    // and the first ones
  bool sink_free;

  __device__ CandidateRow(const SelectParams& p, int block, int head)
      : sums(masses_of(p, block, head)),
        group_step(p.num_groups == 2 ? p.num_padded_candidates : 0),
        share(group_step == 0 ? 1.f : 1.f / static_cast<float>(num_rows_of(p, block))),
        count(num_candidates_of(p, block)),
        first_local(count - p.num_local_blocks),
        num_sinks(p.num_sink_blocks),
        sink_free(p.sink_free) {}

  __device__ int num_words() const { return (count + kWarpSize - 1) / kWarpSize; }
  __device__ bool is_always_taken(int j) const { return j < num_sinks || j >= first_local; }

  // What the selector sees.
  __device__ float weight(int j) const {
    if (sink_free && is_always_taken(j)) return 0.f;
    return group_step == 0 ? sums[j] : (sums[j] + sums[j + group_step]) * share;
  }
};

// Of rows of up to 32 kNumWords candidates.
template <int kNumWords>
class WeightsInRegisters {
 public:
  __device__ explicit WeightsInRegisters(const CandidateRow& row) {
#pragma unroll
    for (int i = 0; i < kNumWords; ++i) {
      const int j = i * kWarpSize + threadIdx.x % kWarpSize;
      weights_[i] = j < row.count ? __float_as_uint(row.weight(j)) : 0;
    }
  }

  // use(word, weight) for words of the mask in turn, those of the row at least; 0 where there is no
  // candidate.
  template <class Use>
  __device__ __forceinline__ void for_each(const Use& use) const {
#pragma unroll
    for (int i = 0; i < kNumWords; ++i) use(i, weights_[i]);
  }

 private:
  uint32_t weights_[kNumWords];
};

// Of any row; they take the place of the first group's sums.
class WeightsInMemory {
 public:
  __device__ explicit WeightsInMemory(const CandidateRow& row) : row_(row) {
    for (int j = threadIdx.x % kWarpSize; j < row.count; j += kWarpSize) {
      row.sums[j] = row.weight(j);
    }
  }

  template <class Use>
  __device__ __forceinline__ void for_each(const Use& use) const {
#pragma unroll 4
    for (int i = 0; i < row_.num_words(); ++i) {
      const int j = i * kWarpSize + threadIdx.x % kWarpSize;
      use(i, j < row_.count ? __float_as_uint(row_.sums[j]) : 0);
    }
  }

 private:
  const CandidateRow& row_;
};

}  // namespace pbserve::kernels::cuda
