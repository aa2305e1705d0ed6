// What the kernels of pbs_order get, and their launchers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace pbserve::kernels::cuda {

// A "row" is one proxy query of one of the G heads that share a KV head: row i G + g is proxy i of
// head g. All rows of a KV head meet all keys of complete segments.
struct OrderParams {
  const __nv_bfloat16* proxies;  // [num_proxies, Hq, D]: the last queries of the span
  const __nv_bfloat16* k_pages;  // [num_pages, Hkv, P, D]
  const __nv_bfloat16* v_pages;  // [num_pages, Hkv, P, D]
  const int32_t* block_table;    // [num_keys / P]
  uint8_t* order;                // [Hkv, L]
  __nv_bfloat16* k;              // [Hkv, L, D]
  __nv_bfloat16* v;              // [Hkv, L, D]
  float* k_pooled;               // [Hkv, L / B, D]
  float2* partials;              // [Hkv, num_chunks, num_rows]: (top, sum) of each chunk of keys
  float* log_masses;             // [Hkv, num_padded_rows]: log2 of num_rows times the row's sum
  int64_t plan_len;              // L
  int32_t num_q_heads;
  int32_t num_kv_heads;
  int32_t group;            // G
  int32_t num_rows;         // num_proxies G
  int32_t num_padded_rows;  // to whole tiles; the log_masses there are infinite
  int32_t num_keys;
  int32_t chunk_len;
  int32_t num_chunks;
  int32_t segment;   // S
  float scale_log2;  // scale / ln 2
};

// Each launches for head size kDim, 64 or 128.
template <int kDim>
void proxy_softmax(const OrderParams& params, cudaStream_t stream);  // partials, log_masses
template <int kDim>
void order_segments(const OrderParams& params, cudaStream_t stream);  // order, k, v, k_pooled

}  // namespace pbserve::kernels::cuda
