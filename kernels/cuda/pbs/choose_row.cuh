// From the weights of one query block of one head to its row of the mask: the work of a warp.
//
// Weights are floats that are not negative and below 2, so their bits compare as they do. A sum
// goes over the candidates in one order, whatever the launch and wherever the weights are; leaving
// some of them out makes it no larger.
#pragma once

#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/pbs/row_weights.cuh"

namespace pbserve::kernels::cuda {

// Some blocks: the sum of their weights, and their number, a float because floats are added at
// twice the rate of integers; it is exact below 2^24.
struct BlockSum {
  float mass = 0.f;
  float number = 0.f;
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

  // The heaviest and the lightest candidate.
  struct Extent {
    uint32_t most = 0;
    uint32_t least = kNoLimit;
  };

  __device__ Extent extent() const {
    Extent extent;
    weights_.for_each([&](int word, uint32_t w) {
      extent.most = max(extent.most, w);
      if (candidate(word) < row_.count) extent.least = min(extent.least, w);
    });
    return {__reduce_max_sync(kFullWarp, extent.most), __reduce_min_sync(kFullWarp, extent.least)};
  }

  // Of the weights from `bound` on; there are zeros behind the candidates.
  __device__ BlockSum sum_from(uint32_t bound) const {
    BlockSum sum;
    weights_.for_each([&](int, uint32_t w) {
      if (w >= bound) {
        sum.mass += __uint_as_float(w);
        sum.number += 1.f;
      }
    });
    return {warp_reduce(sum.mass, Sum()), warp_reduce(sum.number, Sum())};
  }

  // Weights that are not seen count as 0 and the others are scaled to add up to 1: instead, the
  // target is scaled down.
  __device__ float target_mass(float all) const {
    return p_.sink_free ? p_.threshold * all : p_.threshold;
  }

  // The bound is the lightest weight that the heaviest-first walk takes: the largest value w with
  // mass(weights >= w) >= target. It is looked for between the lightest and the heaviest, halving
  // what is left until one block alone is in question. Two bits a round from the top of the number
  // on, with three sums, took .28 ms more for a layer at 128K tokens.
  __device__ Choice choose_top_p() const {
    BlockSum at_least = {sum_from(0).mass, static_cast<float>(row_.count)};  // weights >= bound
    BlockSum above;                                                          // weights >= limit
    const float target = target_mass(at_least.mass);
    if (target == 0.f) return kNone;
    if (at_least.mass < target) return kAll;  // by rounding
    const Extent all = extent();
    uint32_t bound = all.least;
    uint32_t limit = all.most + 1;
#pragma unroll 1
    while (at_least.number - above.number > 1.f && limit - bound > 1) {
      const uint32_t middle = bound + (limit - bound) / 2;
      const BlockSum sum = sum_from(middle);
      if (sum.mass < target) {
        above = sum;
        limit = middle;
      } else {
        at_least = sum;
        bound = middle;
      }
    }
    if (at_least.number - above.number == 1.f) return {heaviest_below(limit), kNoLimit};
    const float weight = __uint_as_float(bound);  // of several blocks alike
    return {bound, static_cast<uint32_t>(ceilf((target - above.mass) / weight))};
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
    uint32_t num_taken = 0;  // of the lane
    uint32_t num_ties = 0;
    weights_.for_each([&](int word, uint32_t w) {
      const bool exists = candidate(word) < row_.count;
      bool chosen = w >= choice.bound;
      if (choice.num_ties != kNoLimit) {
        const uint32_t ties = __ballot_sync(kFullWarp, exists && w == choice.bound);
        const uint32_t rank = num_ties + __popc(ties & ((1u << lane) - 1));
        chosen = w > choice.bound || (w == choice.bound && rank < choice.num_ties);
        num_ties += __popc(ties);
      }
      const bool taken = exists && (chosen || row_.is_always_taken(candidate(word)));
      const uint32_t bits = __ballot_sync(kFullWarp, taken);
      if (lane == 0 && word < row_.num_words()) words[word] = bits;
      num_taken += taken;
    });
    for (int word = row_.num_words() + lane; word < p_.num_mask_words; word += kWarpSize) {
      words[word] = 0;
    }
    return __reduce_add_sync(kFullWarp, num_taken);
  }

  // The lane's candidate in a word of the mask.
  __device__ static int candidate(int word) {
    return word * kWarpSize + static_cast<int>(threadIdx.x) % kWarpSize;
  }

  const SelectParams& p_;
  const Weights& weights_;
  const CandidateRow& row_;
};

}  // namespace pbserve::kernels::cuda
