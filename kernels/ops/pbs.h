// PBS: permuted block-sparse prefill attention (arXiv 2510.21270), one span of one sequence.
//
// A span is the queries at positions [s, e), s a multiple of the span length. Per layer:
//   1. pbs_order  - score the keys of the complete segments [0, floor(e/S)*S) with the span's last
//                   queries, sort each segment by score, keep permuted copies of K and V;
//   2. pbs_select - for each query block, score the permuted key blocks of earlier segments and
//                   take the ones that carry the attention mass: bits of a mask;
//   3. pbs_prefill - exact softmax attention over the taken blocks and the own segment.
// Step 1 runs once the whole span's q is known; steps 2 and 3 run for any range of query blocks.
// Everything depends on tokens before e only. B = 128 tokens = one page; S = segment.
#pragma once

#include <cstdint>

#include "kernels/core/bits.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/core/workspace.h"
#include "kernels/ops/rope.h"

namespace pbserve::kernels {

inline constexpr int kPbsBlock = kPageSize;

enum class PbsScorer : uint8_t {
  kMean,          // pooled query . pooled key
  kAntidiagonal,  // PBS+ (after XAttention): antidiagonal sums of stride x stride tiles
};

enum class PbsSelector : uint8_t {
  kTopP,      // heaviest blocks until the cumulative weight reaches the threshold
  kMaxRatio,  // blocks of at least threshold times the row's largest weight (FlashPrefill)
};

struct PbsParams {
  int32_t segment = 256;  // S, a multiple of B, at most 256: an order entry is one byte
  PbsScorer scorer = PbsScorer::kAntidiagonal;
  int32_t stride = 8;  // antidiagonal only: 8 or 16
  PbsSelector selector = PbsSelector::kTopP;
  float threshold = 0.9f;  // tau of top_p (>= 1 takes every block); alpha of max_ratio
};

struct PbsSpan {
  int32_t begin;  // s, a multiple of S
  int32_t end;    // e > s

  int32_t num_rows() const { return end - begin; }
};

// What steps 1 and 2 leave for step 3, sized for the longest context and the longest span.
struct PbsPlan {
  Tensor order;     // [Hkv, L] uint8: the permuted place p holds the key at segment base + order[p]
  Tensor k;         // [Hkv, L, D] permuted keys of the complete segments
  Tensor v;         // [Hkv, L, D] the same permutation of the values
  Tensor k_pooled;  // [Hkv, L/B, D] float32 means of the permuted key blocks
  Tensor mask;      // [Hq, span/B, words] uint32: bit j of word j/32 = permuted key block j taken;
                    // blocks of the own segment are always attended and are not in the mask
  Tensor scratch;   // [bytes] uint8, backend-private
};

struct PbsPlanShape {
  int64_t num_q_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t context_len_max;  // longest e
  int64_t span_len_max;     // longest e - s
  DType dtype;
};

PbsPlan take_pbs_plan(const PbsPlanShape& shape, Device device, Workspace& workspace);

struct PbsOrderArgs {
  PbsPlan plan;    // order, k, v, k_pooled are written for [0, floor(e/S)*S)
  Tensor q;        // [e - s, Hq, D], rotated
  Tensor k_pages;  // [num_pages, Hkv, B, D]
  Tensor v_pages;
  Tensor block_table;  // [max_pages] int32 of this sequence
  PbsSpan span;
  PbsParams params;
  float scale;
};
void pbs_order(const PbsOrderArgs& args, const Stream& stream);

struct PbsSelectArgs {
  PbsPlan plan;  // mask rows of the blocks are written
  Tensor q;      // [e - s, Hq, D]
  PbsSpan span;
  int32_t block_begin;  // query blocks of the span, half-open: block i holds the rows
  int32_t block_end;    // [i B, min((i + 1) B, e - s))
  Tensor num_selected;  // [1] int64: += blocks attended, own segment included, over all heads
  PbsParams params;
  float scale;
};
void pbs_select(const PbsSelectArgs& args, const Stream& stream);

struct PbsPrefillArgs {
  Tensor out;  // [e - s, Hq, D]; rows of the query blocks [block_begin, block_end) written
  PbsPlan plan;
  Tensor q;  // [e - s, Hq, D]
  Tensor k_pages;
  Tensor v_pages;
  Tensor block_table;  // [max_pages] int32
  PbsSpan span;
  int32_t block_begin;
  int32_t block_end;
  int32_t segment;  // S
  float scale;
};
void pbs_prefill(const PbsPrefillArgs& args, const Stream& stream);

// Blocks a dense causal pass attends for the span, over Hq heads: the denominator of the density.
constexpr int64_t num_causal_blocks(PbsSpan span, int64_t num_q_heads) {
  const int64_t first = span.begin / kPbsBlock;
  const int64_t last = ceil_div(span.end, kPbsBlock);
  return num_q_heads * (last * (last + 1) - first * (first + 1)) / 2;
}

namespace cpu {
int64_t pbs_scratch_bytes(const PbsPlanShape& shape);
void pbs_order(const PbsOrderArgs& args, ThreadPool& pool);
void pbs_select(const PbsSelectArgs& args, ThreadPool& pool);
void pbs_prefill(const PbsPrefillArgs& args, ThreadPool& pool);
}  // namespace cpu
namespace cuda {
int64_t pbs_scratch_bytes(const PbsPlanShape& shape);
void pbs_order(const PbsOrderArgs& args, CudaHandle stream);
void pbs_select(const PbsSelectArgs& args, CudaHandle stream);
void pbs_prefill(const PbsPrefillArgs& args, CudaHandle stream);
}  // namespace cuda

}  // namespace pbserve::kernels
