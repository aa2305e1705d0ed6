// pbs_order: complete segments sorted by what the last queries of their span attend to, the rest as
// it is.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/order_params.h"
#include "kernels/cuda/pbs/order_scratch.h"
#include "kernels/cuda/pbs/order_spans.h"
#include "kernels/cuda/stream_state.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {
namespace {

// The same for all jobs of a prompt, as are the choices that follow from it.
int32_t longest_span(const PbsJob& job) {
  return job.span_len == 0 ? job.num_rows() : job.span_len;
}

// All but the batch.
OrderParams params_of(const PbsInput& input) {
  using Bf16 = __nv_bfloat16;
  const PbsJob& job = input.job;
  const int64_t num_q_heads = input.q.dim(1);
  const int64_t num_kv_heads = input.pages.k.dim(1);
  const int64_t chunk_len = order_chunk_len(longest_span(job));
  OrderParams p{};
  p.q = device_data<Bf16>(input.q);
  p.own_k = device_data<Bf16>(input.plan.own.k);
  p.own_v = device_data<Bf16>(input.plan.own.v);
  p.k_pages = device_data<Bf16>(input.pages.k);
  p.v_pages = device_data<Bf16>(input.pages.v);
  p.k_mean = device_data<Bf16>(input.pages.k_mean);
  p.k_var = device_data<Bf16>(input.pages.k_var);
  p.pages = device_data<int32_t>(input.block_table) + job.begin / kPbsBlock;
  p.job = job;
  p.num_q_heads = static_cast<int32_t>(num_q_heads);
  p.num_kv_heads = static_cast<int32_t>(num_kv_heads);
  p.group = p.num_q_heads / p.num_kv_heads;
  p.num_rows = kPbsBlock * p.group;
  p.segment = input.params.segment;
  p.chunk_len = static_cast<int32_t>(chunk_len);
  p.num_chunks = static_cast<int32_t>(ceil_div<int64_t>(longest_span(job), chunk_len));
  p.sink_is_first = input.params.sink > 0;
  p.scale_log2 = input.scale * kLog2E;
  return p;
}

// Spans of any length, as many at once as the scratch holds.
template <int kDim>
void order_in_two_passes(OrderParams p, const Tensor& scratch, cudaStream_t stream) {
  float* floats = reinterpret_cast<float*>(device_data<uint8_t>(scratch));
  const int64_t span_bytes = order_bytes_per_span(p.num_q_heads, p.num_chunks);
  check(scratch.numel() >= span_bytes, "pbs_order: scratch");
  const int32_t job_spans = num_spans(p.job);
  for (p.first_span = 0; p.first_span < job_spans; p.first_span += p.num_spans) {
    p.num_spans = static_cast<int32_t>(
        std::min<int64_t>(job_spans - p.first_span, scratch.numel() / span_bytes));
    const int64_t num_rows = int64_t{p.num_spans} * p.num_kv_heads * p.num_rows;
    p.partials = reinterpret_cast<float2*>(floats);
    p.log_masses = floats + num_rows * p.num_chunks * 2;
    proxy_softmax<kDim>(p, stream);
    order_segments<kDim>(p, stream);
  }
}

template <int kDim>
void order(const OrderParams& params, const PbsInput& input, cudaStream_t stream) {
  longest_span(input.job) <= kOnePassKeysMax
      ? order_spans<kDim>(params, input, stream)
      : order_in_two_passes<kDim>(params, input.plan.scratch, stream);
}

}  // namespace

void pbs_order(const PbsOrderArgs& args, CudaHandle handle) {
  const PbsInput& input = args.input;
  check_heads("pbs_order", input.q);
  check(input.scale > 0, "pbs_order: scale is not positive");
  const OrderParams p = params_of(input);
  const auto head_dim = static_cast<int>(input.q.dim(2));
  const cudaStream_t stream = stream_of(handle);
  const int32_t num_keys = align_down(input.job.num_rows(), p.segment);  // of complete segments
  if (input.params.order == PbsOrder::kNatural) {
    copy_natural(p, head_dim, 0, input.job.num_rows(), stream);
    pool_pages({.k_pages = p.k_pages,
                .k_mean = p.k_mean,
                .k_var = p.k_var,
                .pages = p.pages,
                .num_pooled = num_keys / kPbsBlock,
                .num_kv_heads = p.num_kv_heads},
               head_dim, stream);
    return;
  }
  copy_natural(p, head_dim, num_keys, input.job.num_rows(), stream);
  if (num_keys == 0) return;
  head_dim == 64 ? order<64>(p, input, stream) : order<128>(p, input, stream);
}

}  // namespace pbserve::kernels::cuda
