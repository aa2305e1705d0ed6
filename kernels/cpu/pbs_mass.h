// Scorer mass: the share of all that a query attends to that each candidate is expected to hold.
//
// A row is one sampled query of one head. What its own segment holds is exact and comes first, as
// the state that the softmax over the candidates starts from; a candidate enters with its first key
// and with the log of the mean of its keys' exponentials, to the second order of its cumulants.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/aligned_floats.h"
#include "kernels/cpu/softmax_row.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {

class PbsBlockMasses {
 public:
  // Each thread works all its items through one object, so scratch is allocated once.
  static PbsBlockMasses& of_this_thread();

  // Scores the candidates [0, num_candidates) for query block `block` of the job, for the heads
  // that share `kv_head`. num_candidates >= 1.
  template <class T>
  void compute(const PbsInput& input, int64_t block, int64_t kv_head, int64_t num_candidates);

  // Of one of the G heads: [num_candidates]. Valid until the next call.
  float* of_head(int64_t head_in_group);

 private:
  template <class T>
  void pack(const PbsInput& input, int64_t block, int64_t kv_head);
  template <class T>
  void weigh_own_segment(const PbsInput& input, int64_t block, int64_t kv_head);
  template <class T>
  void score_candidates(const PbsInput& input, int64_t kv_head);
  int64_t num_rows() const { return num_heads_ * num_samples_; }

  int64_t dim_ = 0;
  int64_t num_heads_ = 0;    // G
  int64_t num_samples_ = 0;  // sampled queries of the block
  int64_t num_candidates_ = 0;
  int64_t padded_ = 0;             // num_candidates rounded up to whole tiles
  std::vector<SoftmaxState> own_;  // [G num_samples]: the own segment's keys
  AlignedFloats queries_;          // [G num_samples, packed_stride(D)], scaled
  AlignedFloats spreads_;          // kMassSpread / 2 times their squares
  AlignedFloats keys_;             // [D, kPageSize]: keys, or candidates' moments, are columns
  AlignedFloats logits_;           // [G num_samples, kPageSize]
  AlignedFloats firsts_;           // [G num_samples, padded]: logits of first keys
  AlignedFloats log_means_;        // [G num_samples, padded]
  AlignedFloats weights_;          // [padded]
};

}  // namespace pbserve::kernels::cpu
