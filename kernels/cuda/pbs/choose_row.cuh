// From the weights of one query block of one head to its row of the mask: the work of a warp.
//
// Weights are floats that are not negative and below 2, so their bits compare as they do. A sum
// goes over the candidates in one order, whatever the launch and wherever the weights are; leaving
// some of them out makes it no larger.
#pragma once

#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/pbs/row_weights.cuh"

namespace pbserve::kernels::cuda {

// Some blocks: the sum of their weights, and their number.
struct BlockSum {
  float mass = 0.f;
  uint32_t number = 0;

  __device__ void add(uint32_t weight) {
    mass += __uint_as_float(weight);
    ++number;
  }

  // Over the warp.
  __device__ void reduce() {
    mass = warp_reduce(mass, Sum());
    number = __reduce_add_sync(kFullWarp, number);
  }
};

// Weights is one of row_weights.cuh.
template <class Weights>
class RowChooser {
 public:
  __device__ RowChooser(const SelectParams& p, const Weights& weights, const CandidateRow& row)
      : p_(p), weights_(weights), row_(row) {}

  // Writes the row of the mask; returns how many blocks it takes.
  __device__ uint32_t run(uint32_t* words) const {
    return write(words, p_.selector == PbsSelector::kTopP ? choose_top_p() : choose_max_ratio());
  }

 private:
  // What is taken besides: weights above `bound`, and the first num_ties blocks of those equal.
  struct Choice {
    uint32_t bound;
    uint32_t num_ties;
  };
  static constexpr uint32_t kNoLimit = ~0u;
  static constexpr Choice kAll{0, kNoLimit};
  static constexpr Choice kNone{~0u, 0};

  __device__ BlockSum sum_all() const {
    BlockSum sum;
    weights_.for_each([&](int, uint32_t w) { sum.mass += __uint_as_float(w); });
    sum.mass = warp_reduce(sum.mass, Sum());
    sum.number = row_.count;
    return sum;
  }

  // Weights that are not seen count as 0 and the others are scaled to add up to 1: instead, the
  // target is scaled down.
  __device__ float target_mass(float all) const {
    return p_.sink_free ? p_.threshold * all : p_.threshold;
  }

  // The bound is the lightest weight that the heaviest-first walk takes: the largest value w with
  // mass(weights >= w) >= target. It is found two bits at a time, from the top, until one block
  // alone is left in question.
  __device__ Choice choose_top_p() const {
    BlockSum at_least = sum_all();  // the blocks of weights >= bound
    BlockSum above;                 // those that are past question: weights >= bound + 4^i
    const float target = target_mass(at_least.mass);
    if (target == 0.f) return kNone;
    if (at_least.mass < target) return kAll;  // by rounding
    uint32_t bound = 0;
#pragma unroll 1
    for (int shift = 28; shift >= 0; shift -= 2) {  // weights are below 2: bits 31, 30 clear
      BlockSum sums[3];
      sum_from(sums, bound, shift);
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        if (sums[i].mass < target) {
          above = sums[i];
          break;
        }
        at_least = sums[i];
        bound += 1u << shift;
      }
      if (at_least.number - above.number == 1) {
        return {heaviest_below(bound + (1u << shift)), 1};
      }
    }
    const float weight = __uint_as_float(bound);  // of several blocks alike
    return {bound, static_cast<uint32_t>(ceilf((target - above.mass) / weight))};
  }

  // sums[i]: of the weights from bound + (i + 1) 2^shift on.
  __device__ void sum_from(BlockSum (&sums)[3], uint32_t bound, int shift) const {
    weights_.for_each([&](int, uint32_t w) {
#pragma unroll
      for (uint32_t i = 0; i < 3; ++i) {
        if (w >= bound + ((i + 1) << shift)) sums[i].add(w);
      }
    });
#pragma unroll
    for (BlockSum& sum : sums) sum.reduce();
  }

  __device__ uint32_t heaviest_below(uint32_t limit) const {
    uint32_t most = 0;
    weights_.for_each([&](int, uint32_t w) { most = max(most, w < limit ? w : 0); });
    return __reduce_max_sync(kFullWarp, most);
  }

  __device__ Choice choose_max_ratio() const {
    const uint32_t most = heaviest_below(~0u);
    if (most == 0) return kNone;
    return {__float_as_uint(p_.threshold * __uint_as_float(most)), kNoLimit};
  }

  __device__ uint32_t write(uint32_t* words, Choice choice) const {
    const int lane = threadIdx.x % kWarpSize;
    uint32_t num_taken = 0;
    uint32_t num_ties = 0;
    weights_.for_each([&](int word, uint32_t w) {
      const int j = word * kWarpSize + lane;
      const bool exists = j < row_.count;
      const uint32_t ties = __ballot_sync(kFullWarp, exists && w == choice.bound);
      const uint32_t rank = num_ties + __popc(ties & ((1u << lane) - 1));
      const bool chosen = w > choice.bound || (w == choice.bound && rank < choice.num_ties);
      const bool taken = exists && (chosen || row_.is_always_taken(j));
      const uint32_t bits = __ballot_sync(kFullWarp, taken);
      if (lane == 0 && word < row_.num_words()) words[word] = bits;
      num_ties += __popc(ties);
      num_taken += __popc(bits);
    });
    for (int word = row_.num_words() + lane; word < p_.num_mask_words; word += kWarpSize) {
      words[word] = 0;
    }
    return num_taken;
  }

  const SelectParams& p_;
  const Weights& weights_;
  const CandidateRow& row_;
};

}  // namespace pbserve::kernels::cuda
