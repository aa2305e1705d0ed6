// pbs_select: query blocks in batches that fit the scratch; each batch is scored, then chosen from.

#include <cmath>

#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/scratch.h"
#include "kernels/cuda/pbs/select_params.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

int64_t num_candidates_padded(int64_t num_candidates) {
  return align_up(std::max<int64_t>(num_candidates, 1), kCandidateUnit);
}

// Weights count in units of 2^-40, so that their sums are exact and free of order.
uint64_t target_mass(const PbsParams& params) {
  if (params.threshold >= 1.f) return ~uint64_t{0};
  return static_cast<uint64_t>(std::ceil(std::ldexp(double{params.threshold}, 40)));
}

// All but the batch.
SelectParams params_of(const PbsSelectArgs& args) {
  const PbsPlan& plan = args.plan;
  SelectParams p{};
  p.q = device_data<__nv_bfloat16>(args.q);
  p.k = device_data<__nv_bfloat16>(plan.k);
  p.k_pooled = device_data<float>(plan.k_pooled);
  p.order = device_data<uint8_t>(plan.order);
  p.mask = device_data<uint32_t>(plan.mask);
  p.num_selected = reinterpret_cast<unsigned long long*>(device_data<int64_t>(args.num_selected));
  p.plan_len = plan.order.dim(1);
  p.mask_blocks = plan.mask.dim(1);
  p.target_mass = target_mass(args.params);
  p.num_q_heads = static_cast<int32_t>(args.q.dim(1));
  p.num_kv_heads = static_cast<int32_t>(plan.k.dim(0));
  p.head_dim = static_cast<int32_t>(args.q.dim(2));
  p.group = p.num_q_heads / p.num_kv_heads;
  p.num_rows = args.span.num_rows();
  p.span_block = args.span.begin / kPbsBlock;
  p.segment_blocks = args.params.segment / kPbsBlock;
  p.num_groups = args.params.scorer == PbsScorer::kMean ? 1 : kPbsBlock / args.params.stride;
  // Later blocks have more candidates: there is room for those of the last one.
  const int64_t last_block = p.span_block + args.block_end - 1;
  p.num_padded_candidates = static_cast<int32_t>(
      num_candidates_padded(align_down<int64_t>(last_block, p.segment_blocks)));
  p.num_mask_words = static_cast<int32_t>(plan.mask.dim(2));
  p.selector = args.params.selector;
  p.threshold = args.params.threshold;
  p.scale_log2 = args.scale * kLog2E;
  return p;
}

}  // namespace

int64_t pbs_scratch_bytes(const PbsPlanShape& shape) {
  const int64_t span_blocks = ceil_div<int64_t>(shape.span_len_max, kPbsBlock);
  const int64_t candidates =
      num_candidates_padded(ceil_div<int64_t>(shape.context_len_max, kPbsBlock));
  const int64_t block_bytes = std::max(
      select_bytes_per_block(shape.num_q_heads, shape.head_dim, candidates, kQueryGroupsMax),
      select_bytes_per_block(shape.num_q_heads, shape.head_dim, candidates, 1));
  return std::max(order_scratch_bytes(shape.num_q_heads),
                  std::min(span_blocks * block_bytes, std::max(block_bytes, kSelectScratchBytes)));
}

void pbs_select(const PbsSelectArgs& args, CudaHandle handle) {
  check_heads("pbs_select", args.q);
  check(args.scale > 0, "pbs_select: scale is not positive");
  check_eq(args.plan.order.dim(1) % kPbsBlock, 0, "pbs_select: plan.order past a whole block");
  SelectParams p = params_of(args);
  const int64_t scratch_bytes = args.plan.scratch.numel();
  const int64_t block_bytes =
      select_bytes_per_block(p.num_q_heads, p.head_dim, p.num_padded_candidates, p.num_groups);
  check(block_bytes <= scratch_bytes, "pbs_select: scratch");
  p.log_masses = reinterpret_cast<float*>(device_data<uint8_t>(args.plan.scratch));
  for (int32_t block = args.block_begin; block < args.block_end; block += p.num_blocks) {
    p.first_block = block;
    p.num_blocks = static_cast<int32_t>(
        std::min<int64_t>(args.block_end - block, scratch_bytes / block_bytes));
    p.q_pooled = p.log_masses +
                 int64_t{p.num_blocks} * p.num_q_heads * p.num_groups * p.num_padded_candidates;
    if (num_candidates_of(p, p.num_blocks - 1) > 0) {
      p.num_groups == 1 ? score_means(p, stream_of(handle))
                        : score_antidiagonals(p, state_of(handle).num_sms, stream_of(handle));
    }
    choose_blocks(p, stream_of(handle));
  }
}

}  // namespace pbserve::kernels::cuda
