// Scorer query: scores, weights and choice in one persistent kernel.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/pbs/query_scan_consume.cuh"
#include "kernels/cuda/pbs/query_scan_produce.cuh"
#include "kernels/cuda/tensor_map.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kSharedBytesMax = 227 * 1024;

template <class Config>
__global__ void __launch_bounds__(Config::kNumThreads, 1)
    query_scan_kernel(const __grid_constant__ QueryScanParams params) {
  extern __shared__ uint8_t raw[];
  const auto memory = QueryScanMemory<Config>::at(raw);
  if (threadIdx.x == 0) memory.init_barriers();
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Config::kProducerRegisters));
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) QueryScanProducer<Config>(params, memory).run();
    if (1 <= warp && warp <= Config::kNumConsumers) choose_from_items(params, memory, warp - 1);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Config::kConsumerRegisters));
    QueryScanConsumer<Config>(params, memory, warpgroup - 1).run();
  }
}

template <class Config>
int num_stages_for(int num_padded_candidates) {
  int num_stages = Config::kStagesMax;
  while (num_stages > Config::kStagesMin &&
         Config::shared_bytes(num_stages, num_padded_candidates) > kSharedBytesMax) {
    --num_stages;
  }
  check(Config::shared_bytes(num_stages, num_padded_candidates) <= kSharedBytesMax,
        "pbs_select: context too long");
  return num_stages;
}

template <int kDim>
void run(const SelectParams& select, int num_sms, cudaStream_t stream) {
  using Config = QueryScanConfig<kDim>;
  const Tensor q(const_cast<__nv_bfloat16*>(select.q), DType::kBF16,
                 {select.num_rows, select.num_q_heads, kDim});
  const int num_items = select.num_blocks * select.group;
  const QueryScanParams params{
      .q_map = make_head_map(q, Config::kRows),
      .means_map =
          make_row_map(select.means, int64_t{select.num_kv_heads} * select.num_padded_candidates,
                       kDim, Config::kTile),
      .select = select,
      .num_items = num_items,
      .num_units = ceil_div(num_items, Config::kNumConsumers) * select.num_kv_heads,
      .num_stages = num_stages_for<Config>(select.num_padded_candidates)};
  const int shared_bytes = Config::shared_bytes(params.num_stages, select.num_padded_candidates);
  const auto kernel = query_scan_kernel<Config>;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytesMax),
      "pbs_select: shared memory");
  const int grid = std::min(params.num_units, num_sms);
  kernel<<<grid, Config::kNumThreads, shared_bytes, stream>>>(params);
  check_launch("pbs_select");
}

}  // namespace

void select_by_queries(const SelectParams& params, int num_sms, cudaStream_t stream) {
  params.head_dim == 64 ? run<64>(params, num_sms, stream) : run<128>(params, num_sms, stream);
}

}  // namespace pbserve::kernels::cuda
