// How pbs_select uses plan.scratch: the mean keys of the candidates, then their variances and first
// keys (scorer mass) or what a batch of query blocks keeps. The steps of a layer follow each other
// on one stream, so all start at the beginning of the scratch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/bits.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// Query blocks are worked off in batches. A batch keeps one float per query group and candidate
// block (and, scorer mean, the pooled queries) between scoring and choosing. 64
// MB of them stay in the L2 cache for the greater part and are tiles enough for all
// multiprocessors.
inline constexpr int64_t kSelectBatchBytes = int64_t{64} << 20;
inline constexpr int64_t kQueryGroupsMax = 16;  // of a block, at the smallest stride
inline constexpr int64_t kCandidateUnit = 128;  // candidates are padded to whole tiles

constexpr int64_t num_candidates_padded(int64_t num_candidates) {
  return align_up(std::max<int64_t>(num_candidates, 1), kCandidateUnit);
}

// REQUIRES, here and below: num_candidates is padded.
constexpr int64_t means_bytes(int64_t num_kv_heads, int64_t head_dim, int64_t num_candidates) {
  return num_kv_heads * num_candidates * head_dim * static_cast<int64_t>(sizeof(BF16));
}

constexpr int64_t select_bytes_per_block(int64_t num_q_heads, int64_t head_dim,
                                         int64_t num_candidates, int64_t num_query_groups) {
  const int64_t pooled = num_query_groups == 1 ? head_dim : 0;
  return num_q_heads * (num_query_groups * num_candidates + pooled) *
         static_cast<int64_t>(sizeof(float));
}

constexpr int64_t select_scratch_bytes(const PbsPlanShape& shape) {
  const int64_t job_blocks = ceil_div<int64_t>(shape.job_rows_max, kPbsBlock);
  const int64_t candidates =
      num_candidates_padded(ceil_div<int64_t>(shape.context_len_max, kPbsBlock));
  const int64_t block_bytes = std::max(
      select_bytes_per_block(shape.num_q_heads, shape.head_dim, candidates, kQueryGroupsMax),
      select_bytes_per_block(shape.num_q_heads, shape.head_dim, candidates, 1));
  const int64_t moment_bytes = means_bytes(shape.num_kv_heads, shape.head_dim, candidates);
  return std::max(
      3 * moment_bytes,
      moment_bytes + std::min(job_blocks * block_bytes, std::max(block_bytes, kSelectBatchBytes)));
}

}  // namespace pbserve::kernels::cuda
