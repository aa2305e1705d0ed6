// What the kernels of pbs_audit get, and their launchers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/pbs/order_scratch.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// Audited blocks of a batch follow each other at the distance of the period. The keys of each are
// the pages [0, its number in the prompt], cut into chunks.
struct AuditParams {
  const __nv_bfloat16* q;        // [job rows, Hq, D]
  const __nv_bfloat16* own_k;    // [job pages, Hkv, B, D]
  const __nv_bfloat16* k_pages;  // [num_pages, Hkv, B, D]
  const int32_t* pages;          // block_table
  const uint32_t* mask;          // [Hq, mask_blocks, num_words]
  float4* partials;              // [num_audited, Hq, num_chunks, kAuditRows]: AuditState
  unsigned long long* coverage;  // [Hq]
  int64_t mask_blocks;
  int32_t num_words;
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t group;           // G
  int32_t job_block;       // job.begin / B
  int32_t num_rows;        // of the job
  int32_t segment_blocks;  // S / B
  int32_t first_block;     // of the batch, counted in the job
  int32_t period;
  int32_t num_audited;  // blocks of the batch
  int32_t num_chunks;   // of each of them at most
  float scale_log2;     // scale / ln 2
};

// Masses in units of exp2(top), the row's largest logit.
struct AuditState {
  float top;
  float taken;
  float missed;
};

// Each launches for head size kDim, 64 or 128.
template <int kDim>
void audit_chunks(const AuditParams& params, cudaStream_t stream);  // partials
void merge_audits(const AuditParams& params, cudaStream_t stream);  // coverage

// One audited block.
struct AuditBlock {
  int32_t block;           // counted in the job
  int32_t number;          // counted in the prompt: that of its own, last page
  int32_t num_candidates;  // pages of earlier segments
  int32_t first_row;       // of the sampled ones, in q
  int32_t num_rows;
  int32_t chunk_pages;
};

__host__ __device__ inline AuditBlock audit_block(const AuditParams& p, int index) {
  const int32_t block = p.first_block + index * p.period;
  const int32_t number = p.job_block + block;
  const int32_t begin = block * kPbsBlock;
  const int32_t end = begin + kPbsBlock < p.num_rows ? begin + kPbsBlock : p.num_rows;
  const int32_t first_row = end - kAuditRows > begin ? end - kAuditRows : begin;
  return {.block = block,
          .number = number,
          .num_candidates = number / p.segment_blocks * p.segment_blocks,
          .first_row = first_row,
          .num_rows = end - first_row,
          .chunk_pages = audit_chunk_pages(number + 1)};
}

__host__ __device__ inline int num_chunks_of(const AuditBlock& block) {
  return block.number / block.chunk_pages + 1;
}

}  // namespace pbserve::kernels::cuda
