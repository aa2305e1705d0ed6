// How plan.scratch is used. pbs_order and pbs_select follow each other on one stream, so both start
// at its beginning; its size follows from the plan's shape alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/bits.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// pbs_order: (top, sum) of every proxy row for every chunk of keys, then its log mass.
inline constexpr int64_t kOrderChunksMax = 64;

// H200, Llama-3.1-8B: 16 blocks a chunk keep the multiprocessors busy from 9 chunks on; with 64
// the last wave is a small part of the whole. A length of few tiles would not be worth the start.
constexpr int64_t order_chunk_len(int64_t num_keys) {
  return std::max<int64_t>(
      512, align_up<int64_t>(ceil_div<int64_t>(num_keys, kOrderChunksMax), kPbsBlock));
}

constexpr int64_t order_scratch_bytes(int64_t num_q_heads) {
  const int64_t rows = num_q_heads * kPbsBlock;
  return rows * (kOrderChunksMax * 2 + 1) * static_cast<int64_t>(sizeof(float));
}

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
