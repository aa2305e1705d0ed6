// pbs_select: which query blocks take every candidate and which are scored; those are scored and
// chosen from.

#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device_data.h"
#include "kernels/cuda/pbs/order_scratch.h"
#include "kernels/cuda/pbs/scratch.h"
#include "kernels/cuda/pbs/select_params.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

// Query blocks of the job, half-open.
struct BlockRange {
  int32_t begin;
  int32_t end;
};

int32_t num_groups_of(const PbsParams& params) {
  switch (params.scorer) {
    case PbsScorer::kMass:
      return 0;
    case PbsScorer::kQuery:
      return 2;
    case PbsScorer::kMean:
      return 1;
    case PbsScorer::kAntidiagonal:
      break;
  }
  return kPbsBlock / params.stride;
}

// All but the batch.
SelectParams params_of(const PbsSelectArgs& args) {
  const PbsInput& input = args.input;
  const PbsParams& params = input.params;
  SelectParams p{};
  p.q = device_data<__nv_bfloat16>(input.q);
  p.k = device_data<__nv_bfloat16>(input.pages.k);
  p.k_mean = device_data<__nv_bfloat16>(input.pages.k_mean);
  p.k_var = device_data<__nv_bfloat16>(input.pages.k_var);
  p.own_k = device_data<__nv_bfloat16>(input.plan.own.k);
  p.block_table = device_data<int32_t>(input.block_table);
  p.mask = device_data<uint32_t>(input.plan.mask);
  p.num_selected = reinterpret_cast<unsigned long long*>(device_data<int64_t>(args.num_selected));
  p.num_pages = input.pages.k.dim(0);
  p.own_pages = input.plan.own.k.dim(0);
  p.mask_blocks = input.plan.mask.dim(1);
  p.num_q_heads = static_cast<int32_t>(input.q.dim(1));
  p.num_kv_heads = static_cast<int32_t>(input.pages.k.dim(1));
  p.head_dim = static_cast<int32_t>(input.q.dim(2));
  p.group = p.num_q_heads / p.num_kv_heads;
  p.num_rows = input.job.num_rows();
  p.job_block = input.job.begin / kPbsBlock;
  p.segment_blocks = params.segment / kPbsBlock;
  p.num_groups = num_groups_of(params);
  p.num_mask_words = static_cast<int32_t>(input.plan.mask.dim(2));
  p.num_sink_blocks = params.sink;
  // No context is longer than INT_MAX tokens.
  p.num_local_blocks = std::min(params.local, INT32_MAX / params.segment) * p.segment_blocks;
  p.selector = params.selector;
  p.sink_free = params.sink_free;
  p.threshold = params.threshold;
  p.scale_log2 = input.scale * kLog2E;
  return p;
}

// The blocks that have candidates and do not take all of them.
BlockRange scored_blocks(const PbsSelectArgs& args) {
  const PbsParams& params = args.input.params;
  const PbsJob& job = args.input.job;
  const int32_t job_block = job.begin / kPbsBlock;
  const int32_t first = params.segment / kPbsBlock - job_block;
  const int32_t tail = first_tail_block(job.prompt_len, params.dense_tail) - job_block;
  const int32_t begin = std::clamp(first, args.block_begin, args.block_end);
  return {begin, takes_every_block(params) ? begin : std::clamp(tail, begin, args.block_end)};
}

void set_batch(SelectParams& p, BlockRange blocks) {
  p.first_block = blocks.begin;
  p.num_blocks = blocks.end - blocks.begin;
}

void take_all(SelectParams p, BlockRange blocks, cudaStream_t stream) {
  if (blocks.begin == blocks.end) return;
  set_batch(p, blocks);
  take_all_blocks(p, stream);
}

// In batches that fit the scratch behind the mean keys.
void score_in_batches(SelectParams p, BlockRange blocks, const PbsInput& input,
                      const StreamState& state, int64_t scratch_bytes) {
  const int64_t block_bytes =
      select_bytes_per_block(p.num_q_heads, p.head_dim, p.num_padded_candidates, p.num_groups);
  check(block_bytes <= scratch_bytes, "pbs_select: scratch");
  const auto batch = static_cast<int32_t>(
      std::min<int64_t>(blocks.end - blocks.begin, scratch_bytes / block_bytes));
  for (int32_t block = blocks.begin; block < blocks.end; block += batch) {
    set_batch(p, {block, std::min(block + batch, blocks.end)});
    p.q_pooled = p.log_masses +
                 int64_t{p.num_blocks} * p.num_q_heads * p.num_groups * p.num_padded_candidates;
    switch (input.params.scorer) {
      case PbsScorer::kMass:
        break;  // scored and chosen at once, in score()
      case PbsScorer::kQuery:
        scan_queries(p, state.num_sms, state.stream);
        break;
      case PbsScorer::kMean:
        score_means(p, state.stream);
        weigh_masses(p, state.stream);
        break;
      case PbsScorer::kAntidiagonal:
        score_antidiagonals(p, state.num_sms, state.stream);
        weigh_masses(p, state.stream);
        break;
    }
    choose_blocks(p, state.stream);
  }
}

void score(SelectParams p, BlockRange blocks, const PbsInput& input, const StreamState& state) {
  if (blocks.begin == blocks.end) return;
  const PbsScorer scorer = input.params.scorer;
  set_batch(p, blocks);
  // Later blocks have more candidates: there is room for those of the last one.
  p.num_padded_candidates =
      static_cast<int32_t>(num_candidates_padded(num_candidates_of(p, p.num_blocks - 1)));
  const int64_t moment_bytes = means_bytes(p.num_kv_heads, p.head_dim, p.num_padded_candidates);
  const int64_t gathered_bytes = moment_bytes * (scorer == PbsScorer::kMass ? 3 : 1);
  const int64_t scratch_bytes = input.plan.scratch.numel() - gathered_bytes;
  check(scratch_bytes >= 0, "pbs_select: scratch");
  auto* scratch = device_data<uint8_t>(input.plan.scratch);
  p.means = reinterpret_cast<__nv_bfloat16*>(scratch);
  if (scorer == PbsScorer::kMass) {
    p.vars = reinterpret_cast<__nv_bfloat16*>(scratch + moment_bytes);
    p.firsts = reinterpret_cast<__nv_bfloat16*>(scratch + 2 * moment_bytes);
    gather_candidates(p, state.stream);
    scan_masses(p, state.num_sms, state.stream);
    return;
  }
  p.log_masses = reinterpret_cast<float*>(scratch + moment_bytes);
  if (scorer != PbsScorer::kAntidiagonal) gather_means(p, state.stream);
  score_in_batches(p, blocks, input, state, scratch_bytes);
}

}  // namespace

int64_t pbs_scratch_bytes(const PbsPlanShape& shape) {
  return std::max(
      {order_scratch_bytes(shape), audit_scratch_bytes(shape), select_scratch_bytes(shape)});
}

void pbs_select(const PbsSelectArgs& args, CudaHandle handle) {
  check_heads("pbs_select", args.input.q);
  check(args.input.scale > 0, "pbs_select: scale is not positive");
  const StreamState& state = state_of(handle);
  const SelectParams p = params_of(args);
  const BlockRange scored = scored_blocks(args);
  take_all(p, {args.block_begin, scored.begin}, state.stream);
  score(p, scored, args.input, state);
  take_all(p, {scored.end, args.block_end}, state.stream);
}

}  // namespace pbserve::kernels::cuda
