// What pbs_order and pbs_audit need of plan.scratch. The operations of PBS follow each other on one
// stream, so each starts at its beginning.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/bits.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {

// pbs_order in two passes: (top, sum) of every proxy row for every chunk of its span's keys, then
// its log mass. Spans are worked off in batches that fit.
inline constexpr int64_t kOrderChunksMax = 64;

// H200, Llama-3.1-8B: 16 blocks a chunk keep the multiprocessors busy from 9 chunks on; with 64
// the last wave is a small part of the whole. A length of few tiles would not be worth the start.
constexpr int64_t order_chunk_len(int64_t span_len) {
  return std::max<int64_t>(
      512, align_up<int64_t>(ceil_div<int64_t>(span_len, kOrderChunksMax), kPbsBlock));
}

constexpr int64_t order_bytes_per_span(int64_t num_q_heads, int64_t num_chunks) {
  return num_q_heads * kPbsBlock * (num_chunks * 2 + 1) * static_cast<int64_t>(sizeof(float));
}

constexpr int64_t order_scratch_bytes(const PbsPlanShape& shape) {
  return order_bytes_per_span(shape.num_q_heads, kOrderChunksMax);
}

// pbs_audit: a float4 for every sampled row and chunk of pages. Audited blocks are worked off in
// batches that fit. A thread block takes a chunk. Up to 128K tokens there are 32: with 8 key
// heads 256 blocks, about as many as an H100 runs side by side, none of which waits for another.
// Chunks of 4 pages took 1.09 ms in place of 1.04 for a layer at 128K tokens, .113 for .104 at 32K.
// A warp's lanes and one word hold what a block needs to know of 32 pages.
inline constexpr int kAuditChunkPagesMax = 32;
inline constexpr int kAuditChunks = 32;

PBSERVE_HOST_DEVICE constexpr int audit_chunk_pages(int num_pages) {
  const int num_pages_each = ceil_div(num_pages, kAuditChunks);
  return num_pages_each < kAuditChunkPagesMax ? num_pages_each : kAuditChunkPagesMax;
}

constexpr int64_t num_audit_chunks_max(int64_t context_len) {
  return std::max<int64_t>(
      kAuditChunks,
      ceil_div<int64_t>(ceil_div<int64_t>(context_len, kPageSize), kAuditChunkPagesMax));
}

constexpr int64_t audit_bytes_per_block(int64_t num_q_heads, int64_t context_len) {
  return num_q_heads * num_audit_chunks_max(context_len) * kAuditRows * 4 *
         static_cast<int64_t>(sizeof(float));
}

constexpr int64_t audit_scratch_bytes(const PbsPlanShape& shape) {
  return audit_bytes_per_block(shape.num_q_heads, shape.context_len_max);
}

}  // namespace pbserve::kernels::cuda
