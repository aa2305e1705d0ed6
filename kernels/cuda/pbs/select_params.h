// What the kernels of pbs_select get for one batch of query blocks, and their launchers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// The common language of both scorers: a "group" of queries of one head (a whole block, or `stride`
// tokens) has for every candidate block the mass sum of exp(score) over the block's key groups, and
// the kernels pass on its logarithm, base 2. Rows are ordered (KV head, query block, head of the
// KV head's G, group); groups past the end of a short last block have rows that nobody reads.
struct SelectParams {
  const __nv_bfloat16* q;  // [span rows, Hq, D]
  const __nv_bfloat16* k;  // [Hkv, L, D], permuted
  const float* k_pooled;   // [Hkv, L / B, D]
  const uint8_t* order;    // [Hkv, L]
  float* q_pooled;         // [num_blocks, Hq, D]; scorer mean
  float* log_masses;       // [Hkv, num_blocks, G, num_groups, num_padded_candidates]
  uint32_t* mask;          // [Hq, mask_blocks, num_mask_words]
  unsigned long long* num_selected;
  int64_t plan_len;      // L
  int64_t mask_blocks;   // query blocks the mask has room for
  uint64_t target_mass;  // top_p: threshold 2^40; ~0 takes every block
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t head_dim;        // D
  int32_t group;           // G
  int32_t num_rows;        // of the span
  int32_t first_block;     // of the batch, counted in the span
  int32_t num_blocks;      // of the batch
  int32_t span_block;      // span.begin / B
  int32_t segment_blocks;  // S / B
  int32_t num_groups;      // of a whole query block: 1, 8 or 16
  int32_t num_padded_candidates;
  int32_t num_mask_words;
  PbsSelector selector;
  float threshold;
  float scale_log2;  // scale / ln 2
};

// Writes log_masses and q_pooled.
void score_means(const SelectParams& params, cudaStream_t stream);
// Writes log_masses. REQUIRES, as choose_blocks does not: some query block has candidates.
void score_antidiagonals(const SelectParams& params, int num_sms, cudaStream_t stream);
// Writes mask, adds to num_selected.
void choose_blocks(const SelectParams& params, cudaStream_t stream);

// Of query block `block` of the batch: the blocks of the segments before its own.
__host__ __device__ inline int num_candidates_of(const SelectParams& p, int block) {
  return (p.span_block + p.first_block + block) / p.segment_blocks * p.segment_blocks;
}

// The rows of the span that a query block of the batch holds.
__host__ __device__ inline int num_rows_of(const SelectParams& p, int block) {
  const int left = p.num_rows - (p.first_block + block) * kPbsBlock;
  return left < kPbsBlock ? left : kPbsBlock;
}

}  // namespace pbserve::kernels::cuda
