// What the kernels of pbs_order get, and their launchers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// A "row" is one proxy query of one of the G heads that share a KV head: row g B + i is proxy i of
// head g. All rows of a span and KV head meet all keys of the span's complete segments. A span that
// has such a segment has B proxies. Keys and spans are counted from the job's first row.
struct OrderParams {
  const __nv_bfloat16* q;      // [job rows, Hq, D]
  const __nv_bfloat16* own_k;  // [job pages, Hkv, B, D]
  const __nv_bfloat16* own_v;  // [job pages, Hkv, B, D]
  __nv_bfloat16* k_pages;      // [num_pages, Hkv, B, D]
  __nv_bfloat16* v_pages;      // [num_pages, Hkv, B, D]
  __nv_bfloat16* k_mean;       // [num_pages, Hkv, D]
  __nv_bfloat16* k_var;        // [num_pages, Hkv, D]
  const int32_t* pages;        // [job pages]: of the job's blocks
  float2* partials;   // [num_spans, Hkv, num_chunks, rows]: (top, sum) of each chunk of keys
  float* log_masses;  // [num_spans, Hkv, rows]: log2 of `rows` times the row's sum
  PbsJob job;
  int32_t first_span;  // of the job: the batch is [first_span, first_span + num_spans)
  int32_t num_spans;
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t group;     // G
  int32_t num_rows;  // B G
  int32_t segment;   // S
  int32_t chunk_len;
  int32_t num_chunks;     // of the longest span
  int32_t sink_is_first;  // 1: the prompt's first token comes first in its segment
  float scale_log2;       // scale / ln 2
};

// In two passes, for spans of any length. Each launches for head size kDim, 64 or 128.
template <int kDim>
void proxy_softmax(const OrderParams& params, cudaStream_t stream);  // partials, log_masses
template <int kDim>
void order_segments(const OrderParams& params, cudaStream_t stream);  // the pages

// Rows [begin, end) of the job as they are. REQUIRES: begin is a multiple of B.
void copy_natural(const OrderParams& params, int head_dim, int begin, int end, cudaStream_t stream);

struct PoolParams {
  const __nv_bfloat16* k_pages;  // [num_pages, Hkv, B, D]
  __nv_bfloat16* k_mean;         // [num_pages, Hkv, D]
  __nv_bfloat16* k_var;          // [num_pages, Hkv, D]
  const int32_t* pages;          // [num_pooled]
  int32_t num_pooled;
  int32_t num_kv_heads;
};
void pool_pages(const PoolParams& params, int head_dim, cudaStream_t stream);

// One span in the rows of the job.
struct OrderSpan {
  int32_t begin;
  int32_t num_keys;     // of complete segments
  int32_t first_proxy;  // means nothing where there are no keys
};

__host__ __device__ inline OrderSpan order_span(const OrderParams& p, int index) {
  const PbsSpan span = span_of(p.job, index);
  const int32_t length = span.end - span.begin;
  return {.begin = span.begin - p.job.begin,
          .num_keys = length - length % p.segment,
          .first_proxy = span.end - p.job.begin - kPbsBlock};
}

// The row of own_k and own_v, as [job pages Hkv B, D], that a row of the job has for a KV head.
__device__ inline int own_row(const OrderParams& p, int row, int kv_head) {
  return (row / kPbsBlock * p.num_kv_heads + kv_head) * kPbsBlock + row % kPbsBlock;
}

}  // namespace pbserve::kernels::cuda
