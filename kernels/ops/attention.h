// Exact attention over the paged KV cache: prefill (many rows of a few sequences, causal) and
// decode (one row of many sequences). Sizes are host values; contents live on the device.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/rope.h"

namespace pbserve::kernels {

// Consecutive query rows of one sequence. Row i stands at absolute position `position + i` and
// attends to positions [0, position + i].
struct PrefillSegment {
  int32_t row_begin;  // first row in q and out
  int32_t num_rows;   // >= 1
  int32_t position;   // absolute position of the first row
  int32_t sequence;   // row of block_tables
};

struct PrefillAttentionArgs {
  Tensor out;           // [T, Hq, D]
  Tensor q;             // [T, Hq, D]
  Tensor k_pages;       // [num_pages, Hkv, kPageSize, D]
  Tensor v_pages;       // [num_pages, Hkv, kPageSize, D]
  Tensor block_tables;  // [B, max_pages] int32; entries past a sequence's pages are never read
  std::span<const PrefillSegment> segments;  // rows outside every segment are not written
  float scale;                               // multiplies q . k; 1/sqrt(D)
};

void prefill_attention(const PrefillAttentionArgs& args, const Stream& stream);

struct DecodeAttentionArgs {
  Tensor out;           // [B, Hq, D]
  Tensor q;             // [B, Hq, D]
  Tensor k_pages;       // [num_pages, Hkv, kPageSize, D]
  Tensor v_pages;       // [num_pages, Hkv, kPageSize, D]
  Tensor block_tables;  // [B, max_pages] int32
  Tensor context_lens;  // [B] int32, the row's own token included; 0 writes zeros (padding row)
  float scale;
};

// On the CPU a row's result equals the one prefill_attention gives for the same position, bitwise.
void decode_attention(const DecodeAttentionArgs& args, const Stream& stream);

namespace cpu {
void prefill_attention(const PrefillAttentionArgs& args, ThreadPool& pool);
void decode_attention(const DecodeAttentionArgs& args, ThreadPool& pool);
}  // namespace cpu
namespace cuda {
void prefill_attention(const PrefillAttentionArgs& args, CudaHandle stream);
void decode_attention(const DecodeAttentionArgs& args, CudaHandle stream);
}  // namespace cuda

}  // namespace pbserve::kernels
