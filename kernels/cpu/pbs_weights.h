// How much of a query block's attention each candidate block is expected to carry.
//
// Both scorers are one computation: query groups against key groups, a softmax over the candidate
// key groups of each query group, and the mean over query groups of the sum inside a key block.
// `mean` has one group per block, the pooled one; `antidiagonal` has a group per `stride` tokens,
// and its product takes a group's queries backwards against a group's keys forwards.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/aligned_floats.h"
#include "kernels/cpu/softmax_row.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {

class PbsBlockWeights {
 public:
  // Each thread works all its items through one object, so scratch is allocated once.
  static PbsBlockWeights& of_this_thread();

  // Scores the permuted blocks [0, num_candidates) for query block `block` of the span, for the
  // heads that share `kv_head`. num_candidates >= 1.
  template <class T>
  void compute(const PbsSelectArgs& args, int64_t block, int64_t kv_head, int64_t num_candidates);

  // Of one of the G heads: [num_candidates], summing to 1.
  const float* of_head(int64_t head_in_group);

 private:
  template <class T>
  void pack_means(const PbsSelectArgs& args, int64_t kv_head, const Tensor& q);
  template <class T>
  void pack_groups(const PbsSelectArgs& args, int64_t kv_head, const Tensor& q);
  template <class K>
  void score(const K* keys, int64_t key_groups_per_block);
  void reduce_tile(int64_t first_group, int64_t num_groups, int64_t key_groups_per_block);
  float* query_group(int64_t head_in_group, int64_t group_idx);

  int64_t dim_ = 0;
  int64_t num_heads_ = 0;  // G
  int64_t num_candidates_ = 0;
  int64_t num_groups_ = 0;  // query groups of the block
  int64_t group_len_ = 0;   // vectors of D floats in a group: 1, or the stride
  int64_t padded_ = 0;      // num_candidates rounded up to whole Vecs
  AlignedFloats queries_;   // [G, num_groups, group_len D + kLanes]
  AlignedFloats keys_;      // [D, kTileColumns]
  AlignedFloats scores_;    // [G num_groups, kTileColumns]
  AlignedFloats tops_;      // [G num_groups, padded]: largest score of a key block's groups
  AlignedFloats sums_;      // [G num_groups, padded]: sum of exp(score - top) in the key block
  AlignedFloats weights_;   // [padded]
};

}  // namespace pbserve::kernels::cpu
