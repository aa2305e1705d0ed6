// What the decode kernels get, and the rule by which a context is cut into chunks.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace pbserve::kernels::cuda {

inline constexpr int kMaxChunks = 64;  // of one row

struct DecodeParams {
  __nv_bfloat16* out;            // [B, Hq, D], may be q
  const __nv_bfloat16* q;        // [B, Hq, D]
  const __nv_bfloat16* k_pages;  // [num_pages, Hkv, P, D]
  const __nv_bfloat16* v_pages;  // [num_pages, Hkv, P, D]
  const int32_t* block_tables;   // [B, max_pages]
  const int32_t* context_lens;   // [B]
  // Of each chunk of a row with several: the largest logit in base 2, the sum of the weights
  // exp2(logit - largest), and the values summed with these weights.
  float2* states;   // [B, Hq, kMaxChunks]
  float* partials;  // [B, Hq, kMaxChunks, D]
  int32_t num_rows;
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t max_pages;
  float scale_log2;  // scale / ln 2: the softmax runs in base 2
};

struct ContextSplit {
  int32_t chunk_len;   // a multiple of the page size
  int32_t num_chunks;  // at most kMaxChunks; 0 for an empty context
};

// A function of the row's own context, so that a result does not depend on the batch. Chunks below
// 256 tokens would spend more time on merging than on reading.
__host__ __device__ inline ContextSplit split_context(int32_t context_len) {
  constexpr int32_t kPage = 128;
  constexpr int32_t kMinChunkLen = 256;
  int32_t chunk_len = (context_len + kMaxChunks - 1) / kMaxChunks;
  chunk_len = (chunk_len + kPage - 1) / kPage * kPage;
  if (chunk_len < kMinChunkLen) chunk_len = kMinChunkLen;
  return {chunk_len, (context_len + chunk_len - 1) / chunk_len};
}

}  // namespace pbserve::kernels::cuda
