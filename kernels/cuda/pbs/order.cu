// pbs_order: proxy softmax, then score, sort, permute and pool segment by segment.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/order_params.h"
#include "kernels/cuda/pbs/scratch.h"
#include "kernels/cuda/stream_state.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int64_t kRowUnit = 64;  // rows are padded to whole tiles

int32_t narrow_size(int64_t size) {
  check(size <= INT32_MAX, "pbs_order: a size does not fit 32 bits");
  return static_cast<int32_t>(size);
}

OrderParams params_of(const PbsOrderArgs& args) {
  using Bf16 = __nv_bfloat16;
  const PbsPlan& plan = args.plan;
  const int64_t num_proxies = std::min<int64_t>(kPbsBlock, args.span.num_rows());
  const int64_t num_q_heads = args.q.dim(1);
  const int64_t num_kv_heads = args.k_pages.dim(1);
  const int64_t group = num_q_heads / num_kv_heads;
  const int64_t num_keys = align_down<int64_t>(args.span.end, args.params.segment);
  const int64_t num_rows = num_proxies * group;
  const Tensor proxies = args.q.rows(args.q.dim(0) - num_proxies, args.q.dim(0));
  float* scratch = reinterpret_cast<float*>(device_data<uint8_t>(plan.scratch));
  const int64_t chunk_len = order_chunk_len(num_keys);
  return {.proxies = device_data<Bf16>(proxies),
          .k_pages = device_data<Bf16>(args.k_pages),
          .v_pages = device_data<Bf16>(args.v_pages),
          .block_table = device_data<int32_t>(args.block_table),
          .order = device_data<uint8_t>(plan.order),
          .k = device_data<Bf16>(plan.k),
          .v = device_data<Bf16>(plan.v),
          .k_pooled = device_data<float>(plan.k_pooled),
          .partials = reinterpret_cast<float2*>(scratch),
          .log_masses = scratch + num_q_heads * kPbsBlock * kOrderChunksMax * 2,
          .plan_len = plan.order.dim(1),
          .num_q_heads = narrow_size(num_q_heads),
          .num_kv_heads = narrow_size(num_kv_heads),
          .group = narrow_size(group),
          .num_rows = narrow_size(num_rows),
          .num_padded_rows = narrow_size(align_up(num_rows, kRowUnit)),
          .num_keys = narrow_size(num_keys),
          .chunk_len = narrow_size(chunk_len),
          .num_chunks = narrow_size(ceil_div(num_keys, chunk_len)),
          .segment = args.params.segment,
          .scale_log2 = args.scale * kLog2E};
}

template <int kDim>
void run(const OrderParams& params, cudaStream_t stream) {
  proxy_softmax<kDim>(params, stream);
  order_segments<kDim>(params, stream);
}

}  // namespace

void pbs_order(const PbsOrderArgs& args, CudaHandle stream) {
  check_heads("pbs_order", args.q);
  check(args.scale > 0, "pbs_order: scale is not positive");
  check_eq(args.plan.order.dim(1) % kPbsBlock, 0, "pbs_order: plan.order past a whole block");
  check(args.plan.scratch.numel() >= order_scratch_bytes(args.q.dim(1)), "pbs_order: scratch");
  const OrderParams params = params_of(args);
  if (params.num_keys == 0) return;
  args.q.dim(2) == 64 ? run<64>(params, stream_of(stream)) : run<128>(params, stream_of(stream));
}

}  // namespace pbserve::kernels::cuda
