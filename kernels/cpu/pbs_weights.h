// How much of a query block's attention each candidate block is expected to carry.
//
// All scorers but mass (pbs_mass.h) are one computation: query groups against key groups, a softmax
// over the candidate key groups of each query group, and the mean over query groups of the sum
// inside a key block. `query` has a group for every query and one for every block's mean key;
// `mean` has one query group per block, its mean; `antidiagonal` has a group per `stride` tokens,
// and its product takes a group's queries backwards against a group's keys forwards.
#pragma once

#include <cstdint>

#include "kernels/cpu/aligned_floats.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {

class PbsBlockWeights {
 public:
  // Each thread works all its items through one object, so scratch is allocated once.
  static PbsBlockWeights& of_this_thread();

  // Scores the candidates [0, num_candidates) for query block `block` of the job, for the heads
  // that share `kv_head`. num_candidates >= 1.
  template <class T>
  void compute(const PbsInput& input, int64_t block, int64_t kv_head, int64_t num_candidates);

  // Of one of the G heads: [num_candidates], summing to 1. Valid until the next call.
  float* of_head(int64_t head_in_group);

 private:
  template <class T>
  void pack_means(const Tensor& q, int64_t kv_head, float scale);
  template <class T>
  void pack_groups(const Tensor& q, int64_t kv_head, float scale);
  template <class T>
  void score_means(const PbsInput& input, int64_t kv_head);
  template <class T>
  void score_groups(const PbsInput& input, int64_t kv_head);
  void multiply(float* scores, int64_t stride, int64_t columns, int64_t member);
  void reduce_block(int64_t block, int64_t key_groups);
  float* query_group(int64_t head_in_group, int64_t group_idx);
  int64_t num_rows() const { return num_heads_ * num_groups_; }
  int64_t query_stride() const;  // floats from a query group to the next

  int64_t dim_ = 0;
  int64_t num_heads_ = 0;  // G
  int64_t num_candidates_ = 0;
  int64_t num_groups_ = 0;    // query groups of the block
  int64_t group_len_ = 0;     // vectors of D floats in a group: 1, or the stride
  int64_t padded_ = 0;        // num_candidates rounded up to whole tiles
  AlignedFloats queries_;     // [G, num_groups, query_stride]
  AlignedFloats keys_;        // [D, kTileColumns]: key vectors are columns
  AlignedFloats scores_;      // [G num_groups, kTileColumns]
  AlignedFloats log_masses_;  // [G num_groups, padded]: log of sum of exp(score) in the key block
  AlignedFloats weights_;     // [padded]
};

}  // namespace pbserve::kernels::cpu
