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
  Tensor scratch;       // [bytes] uint8, backend-private; empty where none is needed
  float scale;
};

struct DecodeScratchShape {
  int64_t num_rows_max;  // B of the calls that will use it
  int64_t num_q_heads;
  int64_t head_dim;
};

// Bytes of DecodeAttentionArgs.scratch, a multiple of 16. Less of each size needs less of it.
int64_t decode_scratch_bytes(Device device, const DecodeScratchShape& shape);

// `out` may be q. A row's result is a function of the row and its context; on the CPU it equals the
// one prefill_attention gives for the same position, bitwise.
void decode_attention(const DecodeAttentionArgs& args, const Stream& stream);

namespace cpu {
void prefill_attention(const PrefillAttentionArgs& args, ThreadPool& pool);
void decode_attention(const DecodeAttentionArgs& args, ThreadPool& pool);
int64_t decode_scratch_bytes(const DecodeScratchShape& shape);
}  // namespace cpu
namespace cuda {
void prefill_attention(const PrefillAttentionArgs& args, CudaHandle stream);
void decode_attention(const DecodeAttentionArgs& args, CudaHandle stream);
int64_t decode_scratch_bytes(const DecodeScratchShape& shape);
}  // namespace cuda

}  // namespace pbserve::kernels
