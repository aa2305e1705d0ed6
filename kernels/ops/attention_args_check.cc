// Contracts of the attention operations; those of PBS are in pbs_args_check.cc.
#include "kernels/ops/args_check.h"
#include "kernels/ops/heads_check.h"

namespace pbserve::kernels {

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

}  // namespace pbserve::kernels
