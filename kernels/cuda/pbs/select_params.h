// What the kernels of pbs_select get for one batch of query blocks, and their launchers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// Scorers mean and antidiagonal speak of "groups" of queries of one head (a whole block, or
// `stride` tokens): a group has for every candidate block the mass sum of exp(score) over the
// block's key groups, and the kernels pass on its logarithm, base 2. Rows are ordered (KV head,
// query block, head of the KV head's G, group); groups past the end of a short last block have rows
// that nobody reads. Scorer query has two groups, the halves of the block, and passes on the sums
// of the weights that their queries give. Scorer mass passes nothing on: it writes the mask.
struct SelectParams {
  const __nv_bfloat16* q;       // [job rows, Hq, D]
  const __nv_bfloat16* k;       // [num_pages, Hkv, P, D]
  const __nv_bfloat16* k_mean;  // [num_pages, Hkv, D]
  const __nv_bfloat16* k_var;   // [num_pages, Hkv, D]
  const __nv_bfloat16* own_k;   // [own_pages, Hkv, B, D]: the job's keys in natural order
  const int32_t* block_table;   // page of every candidate
  __nv_bfloat16* means;         // [Hkv, num_padded_candidates, D]: k_mean of the candidates
  __nv_bfloat16* vars;          // the same of k_var; scorer mass
  __nv_bfloat16* firsts;        // the same of the pages' first keys; scorer mass
  float* q_pooled;              // [num_blocks, Hq, D]; scorer mean
  float* log_masses;  // [Hkv, num_blocks, G, num_groups, num_padded_candidates]; then weights, in
                      // the place of group 0
  uint32_t* mask;     // [Hq, mask_blocks, num_mask_words]
  unsigned long long* num_selected;
  int64_t num_pages;
  int64_t own_pages;
  int64_t mask_blocks;  // query blocks the mask has room for
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t head_dim;        // D
  int32_t group;           // G
  int32_t num_rows;        // of the job
  int32_t first_block;     // of the batch, counted in the job
  int32_t num_blocks;      // of the batch
  int32_t job_block;       // job.begin / B
  int32_t segment_blocks;  // S / B
  int32_t num_groups;      // of a whole query block: 1, 2, 8 or 16
  int32_t num_padded_candidates;
  int32_t num_mask_words;
  int32_t num_sink_blocks;   // the first candidates, taken always
  int32_t num_local_blocks;  // the last ones likewise
  PbsSelector selector;
  bool sink_free;
  float threshold;
  float scale_log2;  // scale / ln 2
};

// Writes `means` for the candidates of the last query block of the batch, zeros behind them.
void gather_means(const SelectParams& params, cudaStream_t stream);
// The same with `vars` and `firsts`.
void gather_candidates(const SelectParams& params, cudaStream_t stream);
// Scorer mass with its selector: reads `means`, `vars` and `firsts`, writes mask, adds to
// num_selected.
// REQUIRES: every query block has candidates.
void scan_masses(const SelectParams& params, int num_sms, cudaStream_t stream);
// Scorer query: reads `means`, writes log_masses. REQUIRES: every query block has candidates.
void scan_queries(const SelectParams& params, int num_sms, cudaStream_t stream);
// Reads `means`, writes log_masses and q_pooled.
void score_means(const SelectParams& params, cudaStream_t stream);
// Writes log_masses. REQUIRES: some query block has candidates.
void score_antidiagonals(const SelectParams& params, int num_sms, cudaStream_t stream);
// From log_masses to weights.
void weigh_masses(const SelectParams& params, cudaStream_t stream);
// Reads weights, or sums of them where there are two groups; writes mask, adds to num_selected.
void choose_blocks(const SelectParams& params, cudaStream_t stream);
// Takes every candidate: writes mask, adds to num_selected.
void take_all_blocks(const SelectParams& params, cudaStream_t stream);

// Of query block `block` of the batch: the blocks of the segments before its own.
__host__ __device__ inline int num_candidates_of(const SelectParams& p, int block) {
  return (p.job_block + p.first_block + block) / p.segment_blocks * p.segment_blocks;
}

// What row (head, query block) of the batch has in log_masses.
__device__ __forceinline__ float* masses_of(const SelectParams& p, int block, int head) {
  const int64_t row = (int64_t{head / p.group} * p.num_blocks + block) * p.group + head % p.group;
  return p.log_masses + row * p.num_groups * int64_t{p.num_padded_candidates};
}

// The blocks of its own segment up to itself.
__host__ __device__ inline int num_own_blocks_of(const SelectParams& p, int block) {
  return p.job_block + p.first_block + block - num_candidates_of(p, block) + 1;
}

// The rows of the job that a query block of the batch holds.
__host__ __device__ inline int num_rows_of(const SelectParams& p, int block) {
  const int left = p.num_rows - (p.first_block + block) * kPbsBlock;
  return left < kPbsBlock ? left : kPbsBlock;
}

}  // namespace pbserve::kernels::cuda
