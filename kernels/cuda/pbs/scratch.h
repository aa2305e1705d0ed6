// How pbs_select uses plan.scratch; order_scratch.h has the other operations. All follow each other
// on one stream, so each starts at its beginning; its size follows from the plan's shape alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/bits.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// pbs_select: query blocks are worked off in batches. A batch keeps one float per query group and
// candidate block (and, scorer mean, the pooled queries) between scoring and choosing. 64 MB of
// them stay in the L2 cache for the greater part and are tiles enough for all multiprocessors.
inline constexpr int64_t kSelectScratchBytes = int64_t{64} << 20;
inline constexpr int64_t kQueryGroupsMax = 16;  // of a block, at the smallest stride
inline constexpr int64_t kCandidateUnit = 32;   // rows of candidates are padded to whole tiles

// REQUIRES: num_candidates is padded.
constexpr int64_t select_bytes_per_block(int64_t num_q_heads, int64_t head_dim,
                                         int64_t num_candidates, int64_t num_query_groups) {
  const int64_t pooled = num_query_groups == 1 ? head_dim : 0;
  return num_q_heads * (num_query_groups * num_candidates + pooled) *
         static_cast<int64_t>(sizeof(float));
}

}  // namespace pbserve::kernels::cuda
