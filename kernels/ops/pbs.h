// PBS: permuted block-sparse prefill attention (arXiv 2510.21270), one job of one prompt.
//
// A span is the queries at positions [s, e), s a multiple of the span length C. A job is what runs
// through a layer together: consecutive spans. Per layer, once the job's q, k, v are known:
//   1. pbs_order   - each span's last queries score the keys of the span's own complete segments;
//                    every segment is sorted by score and written into its pages in that order,
//                    with the mean and the variance of the keys of every page;
//   2. pbs_select  - for each query block, score the pages of earlier segments and take the ones
//                    that carry the attention mass: bits of a mask;
//   3. pbs_audit   - on a sample of queries, the share of the true mass that was taken;
//   4. pbs_prefill - exact softmax attention over the taken pages and the own segment.
// A softmax does not see the order of its keys, so decode, dense prefill and later spans read
// ordered pages as they are; a segment is ordered once. Only the own segment of a query needs the
// natural order, for its causal mask: the plan keeps the job's own K/V until its layer is done.
//
// Step 1 takes a whole job; the others any range of its query blocks. Everything a span's results
// depend on are tokens before e, the settings, and whether the prompt ends there.
// B = 128 tokens = one page = one block; S = segment.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/bits.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/core/workspace.h"
#include "kernels/ops/kv_pages.h"

namespace pbserve::kernels {

inline constexpr int kPbsBlock = kPageSize;

enum class PbsOrder : uint8_t {
  kSpan,     // by what the last queries of the own span attend to
  kNatural,  // segments stay as they are
};

// How a candidate of a query block gets its weight.
enum class PbsScorer : uint8_t {
  // The share of all that a query attends to that the candidate is expected to hold: with
  //   a[t][j] = scale q.mean[j] + kMassSpread / 2 sum_d (scale q[d])^2 var[j][d]
  // (the log of the mean of exp(scale q.k) over the block's keys, nearly to the second order of its
  // cumulants) and first[j] the block's first key, which of an ordered block is the most attended,
  //   mass[t][j] = B exp(a[t][j]) + exp(scale q.first[j]),
  //   share[t][j] = mass[t][j] / (sum over candidates of it + the exact mass of the keys of the own
  //                               segment up to t).
  // Weight: the root of the mean of share^2 over the rows t = 0, kMassStride, 2 kMassStride... of
  // the block. They do not add up to 1.
  kMass,
  // Of the others the weights add up to 1 over the candidates of a query block.
  kQuery,         // every query against the mean keys, softmax, mean over the queries (after
                  // FlashPrefill V2's scorer)
  kMean,          // the mean query against the mean keys: the paper's
  kAntidiagonal,  // PBS+ (after XAttention): antidiagonal sums of stride x stride tiles
};

// Scorer mass looks at one query of eight: offline that took nothing of its weights, which are
// means (tests/bench/NOTES.md), and planning costs accordingly.
inline constexpr int kMassStride = 8;

// How much of the second order scorer mass believes: 128 keys have not the extremes that a normal
// distribution of their variance would. At equal density 3/4 loses 10 to 50 % less than all of it
// and a half loses more than 3/4 (KL from dense, Qwen2.5-Coder-0.5B at three lengths and
// SmolLM2-135M at one, tests/bench/NOTES.md).
inline constexpr float kMassSpread = 0.75f;

enum class PbsSelector : uint8_t {
  // Of scorer mass, and it has no other: a candidate if its weight is at least
  // (1 - threshold) / sqrt(candidates). What is left out then has at most 1 - threshold in the root
  // of the sum of the squares of its weights, however many candidates there are.
  kErrorBound,
  kTopP,      // heaviest blocks until the cumulative weight reaches the threshold
  kMaxRatio,  // blocks of at least threshold times the row's largest weight (FlashPrefill)
};

// What goes with a scorer: measured on real models (mass, query), or published.
constexpr PbsSelector default_selector(PbsScorer scorer) {
  return scorer == PbsScorer::kMass ? PbsSelector::kErrorBound : PbsSelector::kTopP;
}
constexpr float default_threshold(PbsScorer scorer) {
  if (scorer == PbsScorer::kMass) return 0.933f;
  return scorer == PbsScorer::kQuery ? 0.75f : 0.9f;
}

struct PbsParams {
  int32_t segment = 256;  // S, a multiple of B, at most 256: a place in it is one byte
  PbsOrder order = PbsOrder::kSpan;
  PbsScorer scorer = PbsScorer::kMass;
  int32_t stride = 8;  // antidiagonal only: 8 or 16
  PbsSelector selector = default_selector(PbsScorer::kMass);
  // tau of error_bound and top_p (>= 1 takes every block); alpha of max_ratio.
  float threshold = default_threshold(PbsScorer::kMass);
  // Taken whatever they weigh: the first `sink` candidates, and those of the last `local` segments
  // before the own one. Token 0 is the first key of its segment whatever its score, so block 0 is
  // the sink for everyone who finds the page.
  int32_t sink = 1;   // blocks
  int32_t local = 0;  // segments
  // Whether the weights of what is taken anyway count as 0 and the rest is scaled to add up to 1
  // before top_p or max_ratio. Off: with the `query` scorer, at equal tau, it found less of what
  // dense attention finds and took 5 % more blocks (Qwen2.5-Coder-0.5B, tests/bench/NOTES.md).
  bool sink_free = false;
  int32_t dense_tail = 2;  // last query blocks of the prompt, which take every candidate
};

// Whether the selector takes every candidate, whatever it weighs.
constexpr bool takes_every_block(const PbsParams& params) {
  return params.selector != PbsSelector::kMaxRatio && params.threshold >= 1.f;
}

// Consecutive spans of one prompt. `begin` is a multiple of S, and of C unless a reused prefix ends
// inside a span (then the first span is what is left of it).
struct PbsJob {
  int32_t begin;
  int32_t end;         // of a span; the prompt's end if it is in the last one
  int32_t span_len;    // C, a multiple of S; 0: the whole prompt is one span
  int32_t prompt_len;  // >= end

  int32_t num_rows() const { return end - begin; }
  int32_t num_blocks() const { return ceil_div(num_rows(), kPbsBlock); }
};

// Positions [begin, end) of one span of a job.
struct PbsSpan {
  int32_t begin;
  int32_t end;

  int32_t num_rows() const { return end - begin; }
};

PBSERVE_HOST_DEVICE constexpr int32_t num_spans(const PbsJob& job) {
  if (job.span_len == 0) return 1;
  return ceil_div(job.end, job.span_len) - job.begin / job.span_len;
}

// REQUIRES: 0 <= index < num_spans(job).
PBSERVE_HOST_DEVICE constexpr PbsSpan span_of(const PbsJob& job, int32_t index) {
  if (job.span_len == 0) return {job.begin, job.end};
  const int32_t begin = (job.begin / job.span_len + index) * job.span_len;
  const int32_t end = begin + job.span_len;
  return {begin > job.begin ? begin : job.begin, end < job.end ? end : job.end};
}

// Block of the prompt, counted from its beginning, from which on query blocks are dense.
PBSERVE_HOST_DEVICE constexpr int32_t first_tail_block(int32_t prompt_len, int32_t dense_tail) {
  const int32_t first = ceil_div(prompt_len, kPbsBlock) - dense_tail;
  return first > 0 ? first : 0;
}

// Scratch of one layer of one job, sized for the longest context and the largest job.
struct PbsPlan {
  KvPages own;  // [rows_max / B, Hkv, B, D]: K/V of the job's rows in natural order; row i of the
                // job at page i / B. No k_mean and k_var. Written by whoever computes the rows
  Tensor mask;  // [Hq, rows_max / B, words] uint32: bit j of word j / 32 = candidate j is taken.
                // Blocks of the own segment are always attended and are not in the mask
  Tensor scratch;  // [bytes] uint8, backend-private
};

struct PbsPlanShape {
  int64_t num_q_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t context_len_max;  // longest `end`
  int64_t job_rows_max;     // longest end - begin
  DType dtype;
};

PbsPlan take_pbs_plan(const PbsPlanShape& shape, Device device, Workspace& workspace);

// What the steps share.
struct PbsInput {
  PbsPlan plan;
  KvPages pages;       // of the layer
  Tensor block_table;  // [max_pages] int32 of this sequence; entries past `end` are never read
  Tensor q;            // [end - begin, Hq, D], rotated
  PbsJob job;
  PbsParams params;
  float scale;  // 1/sqrt(D)
};

// Reads plan.own; writes the job's pages: complete segments in order, the rest as it is; k_mean and
// k_var of the pages of complete segments. Score of a key: softmax(scale q.k) over the keys of the
// span's own complete segments, without a causal mask, mean over the span's last min(B, rows)
// queries and the G heads of the key head, in float32. Sorted by (score descending, position
// ascending).
struct PbsOrderArgs {
  PbsInput input;
};
void pbs_order(const PbsOrderArgs& args, const Stream& stream);

// k_mean and k_var of pages that were filled by other means (decode, dense prefill) and complete:
// those of block_table[0, num_pages). The same sums as pbs_order's, in the order of the page and in
// float32: of k, of d and of d^2 with d = k - the page's first key, because means may be far larger
// than deviations; var = max(0, mean of d^2 - (mean of d)^2). Each is rounded once.
struct PbsPoolArgs {
  KvPages pages;
  Tensor block_table;  // [max_pages] int32
  int32_t num_pages;
};
void pbs_pool(const PbsPoolArgs& args, const Stream& stream);

// Writes the mask rows of the query blocks [block_begin, block_end) of the job, half-open: block i
// holds the rows [i B, min((i + 1) B, rows)). Candidates of a block are the pages of the segments
// before its own.
struct PbsSelectArgs {
  PbsInput input;
  int32_t block_begin;
  int32_t block_end;
  Tensor num_selected;  // [1] int64: += blocks attended, own segment included, over all heads
};
void pbs_select(const PbsSelectArgs& args, const Stream& stream);

// A diagnosis: for sampled queries the share of the softmax mass over all keys up to their own that
// the taken blocks and the own segment hold. Sampled are the last kAuditRows rows (fewer where the
// block is shorter) of query blocks whose number in the prompt is `period` / 3 modulo `period`, the
// dense tail aside: by position alone.
inline constexpr int32_t kAuditRows = 16;

struct PbsAuditArgs {
  PbsInput input;  // after pbs_select of the blocks, before anything is written over q
  int32_t block_begin;
  int32_t block_end;
  int32_t period;   // >= 1
  Tensor coverage;  // [Hq] int64: += the sampled rows' shares, in units of 2^-32
};
void pbs_audit(const PbsAuditArgs& args, const Stream& stream);

PBSERVE_HOST_DEVICE constexpr bool is_audited(const PbsJob& job, int32_t block, int32_t dense_tail,
                                              int32_t period) {
  const int32_t number = job.begin / kPbsBlock + block;  // in the prompt
  return number % period == period / 3 && number < first_tail_block(job.prompt_len, dense_tail);
}

// Rows pbs_audit samples of each head: what its sums are to be divided by.
int64_t num_audited_rows(const PbsJob& job, int32_t block_begin, int32_t block_end,
                         int32_t dense_tail, int32_t period);

struct PbsPrefillArgs {
  PbsInput input;
  int32_t block_begin;
  int32_t block_end;
  Tensor out;  // [end - begin, Hq, D]; rows of the query blocks written; may be q
};
void pbs_prefill(const PbsPrefillArgs& args, const Stream& stream);

// Blocks a dense causal pass attends for the positions [begin, end), over Hq heads: the denominator
// of the density. `begin` is a multiple of B.
constexpr int64_t num_causal_blocks(PbsSpan rows, int64_t num_q_heads) {
  const int64_t first = rows.begin / kPbsBlock;
  const int64_t last = ceil_div(rows.end, kPbsBlock);
  return num_q_heads * (last * (last + 1) - first * (first + 1)) / 2;
}

namespace cpu {
int64_t pbs_scratch_bytes(const PbsPlanShape& shape);
void pbs_order(const PbsOrderArgs& args, ThreadPool& pool);
void pbs_pool(const PbsPoolArgs& args, ThreadPool& pool);
void pbs_select(const PbsSelectArgs& args, ThreadPool& pool);
void pbs_audit(const PbsAuditArgs& args, ThreadPool& pool);
void pbs_prefill(const PbsPrefillArgs& args, ThreadPool& pool);
}  // namespace cpu
namespace cuda {
int64_t pbs_scratch_bytes(const PbsPlanShape& shape);
void pbs_order(const PbsOrderArgs& args, CudaHandle stream);
void pbs_pool(const PbsPoolArgs& args, CudaHandle stream);
void pbs_select(const PbsSelectArgs& args, CudaHandle stream);
void pbs_audit(const PbsAuditArgs& args, CudaHandle stream);
void pbs_prefill(const PbsPrefillArgs& args, CudaHandle stream);
}  // namespace cuda

}  // namespace pbserve::kernels
