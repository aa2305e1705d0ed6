// Contracts of the PBS operations.
#include "kernels/ops/args_check.h"
#include "kernels/ops/heads_check.h"

namespace pbserve::kernels {
namespace {

void check_segment(int32_t segment) {
  check(segment > 0 && segment % kPbsBlock == 0 && segment <= 256,
        "pbs: segment is not 128 or 256");
}

void check_job(const PbsJob& job, int32_t segment) {
  check_segment(segment);
  check(job.begin >= 0 && job.begin % segment == 0, "pbs: job does not start on a segment");
  check(job.end > job.begin, "pbs: empty job");
  check(job.end <= job.prompt_len, "pbs: job past the prompt");
  check(job.span_len >= 0 && job.span_len % segment == 0,
        "pbs: span length is not a multiple of the segment");
  check(job.end == job.prompt_len || (job.span_len > 0 && job.end % job.span_len == 0),
        "pbs: job ends inside a span");
}

void check_params(const PbsParams& params) {
  if (params.scorer == PbsScorer::kAntidiagonal) {
    check(params.stride == 8 || params.stride == 16, "pbs: stride is not 8 or 16");
  }
  check((params.scorer == PbsScorer::kMass) == (params.selector == PbsSelector::kErrorBound),
        "pbs: scorer mass and selector error_bound go together");
  check(params.threshold > 0, "pbs: threshold is not positive");
  check(params.sink >= 0 && params.local >= 0 && params.dense_tail >= 0,
        "pbs: sink, local or dense_tail is negative");
}

void check_blocks(const PbsJob& job, int32_t begin, int32_t end) {
  check(0 <= begin && begin <= end && end <= job.num_blocks(), "pbs: query blocks outside the job");
}

// The rows of blocks and the candidates of the context have bits in the mask.
void check_mask(const Tensor& mask, const PbsJob& job) {
  const Operand operand{"pbs: plan.mask", mask};
  const int64_t words = size_at(operand, 2);
  expect_dtype(operand, {DType::kU32});
  expect_shape(operand, {mask.dim(0), mask.dim(1), words});
  check(job.num_blocks() <= mask.dim(1), "pbs: job longer than the plan");
  check(words * 32 >= job.end / kPbsBlock, "pbs: mask narrower than the context");
}

void check_table(const Tensor& table, int64_t num_pages) {
  const Operand operand{"pbs: block_table", table};
  const int64_t entries = size_at(operand, 0);
  expect_dtype(operand, {DType::kI32});
  expect_shape(operand, {entries});
  check(entries >= num_pages, "pbs: block_table is shorter than the context");
}

void check_moments(const KvPages& pages) {
  const auto expect = [&](Operand operand) {
    expect_heads(operand, pages.k.dtype, {pages.k.dim(0), pages.k.dim(1), pages.k.dim(3)});
  };
  expect({"pbs: k_mean", pages.k_mean});
  expect({"pbs: k_var", pages.k_var});
}

HeadShape check_input(const PbsInput& input) {
  check_job(input.job, input.params.segment);
  check_params(input.params);
  const HeadShape heads = check_q_and_pages(input.q, input.pages.k, input.pages.v);
  check_q_and_pages(input.q, input.plan.own.k, input.plan.own.v);
  check_eq(input.plan.own.k.dim(1), heads.num_kv_heads, "pbs: key heads of plan.own");
  check(input.plan.own.k.dim(0) >= input.job.num_blocks(), "pbs: plan.own shorter than the job");
  check_moments(input.pages);
  check_eq(input.q.dim(0), input.job.num_rows(), "pbs: rows of q and of the job");
  check_mask(input.plan.mask, input.job);
  check_eq(input.plan.mask.dim(0), heads.num_q_heads, "pbs: heads of plan.mask");
  expect_dtype({"pbs: plan.scratch", input.plan.scratch}, {DType::kU8});
  check_table(input.block_table, ceil_div(input.job.end, kPageSize));
  return heads;
}

void check_counter(Operand counter, int64_t size) {
  expect_dtype(counter, {DType::kI64});
  expect_shape(counter, {size});
}

}  // namespace

void check_args(const PbsPlanShape& shape) {
  check(shape.num_kv_heads > 0 && shape.num_q_heads % shape.num_kv_heads == 0,
        "pbs: query heads are not a multiple of key heads");
  check(shape.head_dim > 0 && shape.head_dim % 16 == 0, "pbs: head size is not a multiple of 16");
  check(shape.job_rows_max > 0 && shape.job_rows_max <= shape.context_len_max,
        "pbs: job longer than the context");
  check(shape.dtype == DType::kBF16 || shape.dtype == DType::kF32, "pbs: dtype is not a float");
}

void check_args(const PbsOrderArgs& args) { check_input(args.input); }

void check_args(const PbsPoolArgs& args) {
  const Tensor& k = args.pages.k;
  expect_heads({"pbs_pool: pages.k", k}, k.dtype,
               {size_at({"pbs_pool: pages.k", k}, 0), size_at({"pbs_pool: pages.k", k}, 1),
                kPageSize, size_at({"pbs_pool: pages.k", k}, 3)});
  check_moments(args.pages);
  check(args.num_pages >= 0, "pbs_pool: negative number of pages");
  check_table(args.block_table, args.num_pages);
}

void check_args(const PbsSelectArgs& args) {
  check_input(args.input);
  check_blocks(args.input.job, args.block_begin, args.block_end);
  check_counter({"pbs_select: num_selected", args.num_selected}, 1);
}

void check_args(const PbsAuditArgs& args) {
  const HeadShape heads = check_input(args.input);
  check_blocks(args.input.job, args.block_begin, args.block_end);
  check(args.period >= 1, "pbs_audit: period below 1");
  check_counter({"pbs_audit: coverage", args.coverage}, heads.num_q_heads);
}

void check_args(const PbsPrefillArgs& args) {
  const HeadShape heads = check_input(args.input);
  check_blocks(args.input.job, args.block_begin, args.block_end);
  expect_heads({"pbs_prefill: out", args.out}, heads.dtype,
               {args.input.job.num_rows(), heads.num_q_heads, heads.head_dim});
}

void check_args(const PbsForceMaskArgs& args) {
  check_job(args.job, args.segment);
  check_blocks(args.job, args.block_begin, args.block_end);
  check_mask(args.mask, args.job);
  check_counter({"pbs_force_mask: num_selected", args.num_selected}, 1);
  check(args.density > 0 && args.density <= 1, "pbs_force_mask: density outside (0, 1]");
}

}  // namespace pbserve::kernels
