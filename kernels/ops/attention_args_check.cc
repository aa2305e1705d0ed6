// Contracts of the attention and PBS operations.
#include "kernels/ops/args_check.h"
#include "kernels/ops/tensor_check.h"

namespace pbserve::kernels {
namespace {

struct HeadShape {
  DType dtype;
  int64_t num_q_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
};

// q and both page tensors; returns what they have in common.
HeadShape check_q_and_pages(const Tensor& q, const Tensor& k_pages, const Tensor& v_pages) {
  const int64_t rows = size_at({"attention: q", q}, 0);
  const int64_t num_pages = size_at({"attention: k_pages", k_pages}, 0);
  const HeadShape heads{.dtype = q.dtype,
                        .num_q_heads = size_at({"attention: q", q}, 1),
                        .num_kv_heads = size_at({"attention: k_pages", k_pages}, 1),
                        .head_dim = size_at({"attention: q", q}, 2)};
  expect_heads({"attention: q", q}, q.dtype, {rows, heads.num_q_heads, heads.head_dim});
  for (const Operand pages :
       {Operand{"attention: k_pages", k_pages}, Operand{"attention: v_pages", v_pages}}) {
    expect_heads(pages, q.dtype, {num_pages, heads.num_kv_heads, kPageSize, heads.head_dim});
  }
  check(heads.num_kv_heads > 0 && heads.num_q_heads % heads.num_kv_heads == 0,
        "attention: query heads are not a multiple of key heads");
  return heads;
}

void check_block_table(Operand table, int64_t num_pages_needed) {
  const int64_t entries = size_at(table, 0);
  expect_dtype(table, {DType::kI32});
  expect_shape(table, {entries});
  check(entries >= num_pages_needed, "pbs: block_table is shorter than the context");
}

void check_span(const PbsSpan& span, int64_t segment) {
  check(segment > 0 && segment % kPbsBlock == 0 && segment <= 256,
        "pbs: segment is not 128 or 256");
  check(span.begin >= 0 && span.begin % segment == 0, "pbs: span does not start on a segment");
  check(span.end > span.begin, "pbs: empty span");
}

void check_blocks(const PbsSpan& span, int32_t begin, int32_t end) {
  check(0 <= begin && begin <= end && end <= ceil_div(span.num_rows(), kPbsBlock),
        "pbs: query blocks outside the span");
}

// The plan's capacity covers the span's context.
void check_plan(const PbsPlan& plan, const HeadShape& heads, const PbsSpan& span) {
  const int64_t capacity = size_at({"pbs: plan.order", plan.order}, 1);
  const int64_t blocks = ceil_div<int64_t>(capacity, kPbsBlock);
  const int64_t query_blocks = size_at({"pbs: plan.mask", plan.mask}, 1);
  const int64_t words = size_at({"pbs: plan.mask", plan.mask}, 2);
  check(span.end <= capacity, "pbs: context longer than the plan");
  check(ceil_div(span.num_rows(), kPbsBlock) <= query_blocks, "pbs: span longer than the plan");
  check(words * 32 >= blocks, "pbs: mask narrower than the plan's context");
  expect_dtype({"pbs: plan.order", plan.order}, {DType::kU8});
  expect_shape({"pbs: plan.order", plan.order}, {heads.num_kv_heads, capacity});
  for (const Operand copy : {Operand{"pbs: plan.k", plan.k}, Operand{"pbs: plan.v", plan.v}}) {
    expect_heads(copy, heads.dtype, {heads.num_kv_heads, capacity, heads.head_dim});
  }
  expect_dtype({"pbs: plan.k_pooled", plan.k_pooled}, {DType::kF32});
  expect_shape({"pbs: plan.k_pooled", plan.k_pooled}, {heads.num_kv_heads, blocks, heads.head_dim});
  expect_dtype({"pbs: plan.mask", plan.mask}, {DType::kU32});
  expect_shape({"pbs: plan.mask", plan.mask}, {heads.num_q_heads, query_blocks, words});
  expect_dtype({"pbs: plan.scratch", plan.scratch}, {DType::kU8});
}

void check_params(const PbsParams& params) {
  if (params.scorer == PbsScorer::kAntidiagonal) {
    check(params.stride == 8 || params.stride == 16, "pbs: stride is not 8 or 16");
  }
  check(params.threshold > 0, "pbs: threshold is not positive");
}

}  // namespace

void check_args(const PrefillAttentionArgs& args) {
  const HeadShape heads = check_q_and_pages(args.q, args.k_pages, args.v_pages);
  const int64_t rows = args.q.dim(0);
  expect_heads({"prefill_attention: out", args.out}, heads.dtype,
               {rows, heads.num_q_heads, heads.head_dim});
  const Operand tables{"prefill_attention: block_tables", args.block_tables};
  const int64_t num_sequences = size_at(tables, 0);
  const int64_t max_pages = size_at(tables, 1);
  expect_dtype(tables, {DType::kI32});
  expect_shape(tables, {num_sequences, max_pages});
  for (const PrefillSegment& segment : args.segments) {
    check(segment.num_rows >= 1 && segment.position >= 0, "prefill_attention: empty segment");
    check(segment.row_begin >= 0 && segment.row_begin + segment.num_rows <= rows,
          "prefill_attention: segment rows outside q");
    check(segment.sequence >= 0 && segment.sequence < num_sequences,
          "prefill_attention: sequence outside block_tables");
    check(segment.position + segment.num_rows <= max_pages * kPageSize,
          "prefill_attention: segment past the end of its block table");
  }
}

void check_args(const DecodeAttentionArgs& args) {
  const HeadShape heads = check_q_and_pages(args.q, args.k_pages, args.v_pages);
  const int64_t rows = args.q.dim(0);
  expect_heads({"decode_attention: out", args.out}, heads.dtype,
               {rows, heads.num_q_heads, heads.head_dim});
  const Operand tables{"decode_attention: block_tables", args.block_tables};
  expect_dtype(tables, {DType::kI32});
  expect_shape(tables, {rows, size_at(tables, 1)});
  expect_dtype({"decode_attention: context_lens", args.context_lens}, {DType::kI32});
  expect_shape({"decode_attention: context_lens", args.context_lens}, {rows});
  if (args.scratch.empty()) return;
  const Operand scratch{"decode_attention: scratch", args.scratch};
  expect_dtype(scratch, {DType::kU8});
  expect_shape(scratch, {size_at(scratch, 0)});
  expect_aligned(scratch, kVectorAlignment);
}

void check_args(const PbsPlanShape& shape) {
  check(shape.num_kv_heads > 0 && shape.num_q_heads % shape.num_kv_heads == 0,
        "pbs: query heads are not a multiple of key heads");
  check(shape.head_dim > 0 && shape.head_dim % 16 == 0, "pbs: head size is not a multiple of 16");
  check(shape.span_len_max > 0 && shape.span_len_max <= shape.context_len_max,
        "pbs: span longer than the context");
  check(shape.dtype == DType::kBF16 || shape.dtype == DType::kF32, "pbs: dtype is not a float");
}

void check_args(const PbsOrderArgs& args) {
  check_span(args.span, args.params.segment);
  check_params(args.params);
  const HeadShape heads = check_q_and_pages(args.q, args.k_pages, args.v_pages);
  check_eq(args.q.dim(0), args.span.num_rows(), "pbs_order: rows of q and of the span");
  check_plan(args.plan, heads, args.span);
  check_block_table({"pbs_order: block_table", args.block_table},
                    ceil_div(args.span.end, kPageSize));
}

void check_args(const PbsSelectArgs& args) {
  check_span(args.span, args.params.segment);
  check_params(args.params);
  check_blocks(args.span, args.block_begin, args.block_end);
  const HeadShape heads{.dtype = args.q.dtype,
                        .num_q_heads = size_at({"pbs_select: q", args.q}, 1),
                        .num_kv_heads = size_at({"pbs_select: plan.k", args.plan.k}, 0),
                        .head_dim = size_at({"pbs_select: q", args.q}, 2)};
  expect_heads({"pbs_select: q", args.q}, args.q.dtype,
               {args.span.num_rows(), heads.num_q_heads, heads.head_dim});
  check_plan(args.plan, heads, args.span);
  expect_dtype({"pbs_select: num_selected", args.num_selected}, {DType::kI64});
  expect_shape({"pbs_select: num_selected", args.num_selected}, {1});
}

void check_args(const PbsForceMaskArgs& args) {
  check_span(args.span, args.segment);
  check_blocks(args.span, args.block_begin, args.block_end);
  expect_dtype({"pbs_force_mask: mask", args.plan.mask}, {DType::kU32});
  check(size_at({"pbs_force_mask: mask", args.plan.mask}, 1) >= args.block_end,
        "pbs_force_mask: mask is shorter than the span");
  check(args.plan.mask.dim(2) * 32 >= args.span.end / kPbsBlock,
        "pbs_force_mask: mask is narrower than the context");
  check(args.plan.mask.contiguous(), "pbs_force_mask: mask has gaps");
  expect_dtype({"pbs_force_mask: num_selected", args.num_selected}, {DType::kI64});
  expect_shape({"pbs_force_mask: num_selected", args.num_selected}, {1});
  check(args.density > 0 && args.density <= 1, "pbs_force_mask: density outside (0, 1]");
}

void check_args(const PbsPrefillArgs& args) {
  check_span(args.span, args.segment);
  check_blocks(args.span, args.block_begin, args.block_end);
  const HeadShape heads = check_q_and_pages(args.q, args.k_pages, args.v_pages);
  const int64_t rows = args.span.num_rows();
  check_eq(args.q.dim(0), rows, "pbs_prefill: rows of q and of the span");
  expect_heads({"pbs_prefill: out", args.out}, heads.dtype,
               {rows, heads.num_q_heads, heads.head_dim});
  check_plan(args.plan, heads, args.span);
  check_block_table({"pbs_prefill: block_table", args.block_table},
                    ceil_div(args.span.end, kPageSize));
}

}  // namespace pbserve::kernels
