// Scorer query: from the mean keys to the weights of each half of a query block, in one persistent
// kernel.

#include "kernels/cuda/device/aligned_shared.cuh"
#include "kernels/cuda/device/specialize.cuh"
#include "kernels/cuda/launch_dependent.h"
#include "kernels/cuda/pbs/query_scan_consume.cuh"
#include "kernels/cuda/pbs/query_scan_produce.cuh"
#include "kernels/cuda/tensor_map.h"

namespace pbserve::kernels::cuda {
namespace {

// It does not let the choosing kernel start beside it: at 128K tokens select then took .11 ms more.
template <class Config>
__global__ void __launch_bounds__(Config::kNumThreads, 1)
    query_scan_kernel(const __grid_constant__ QueryScanParams params) {
  extern __shared__ uint8_t raw[];
  auto& shared = aligned_shared<typename Config::Shared>(raw);
  if (threadIdx.x == 0) shared.init_barriers();
  __syncthreads();
  produce_and_consume<QueryScanProducer<Config>, QueryScanConsumer<Config>, Config>(params, shared);
}

template <int kDim>
void run(const SelectParams& select, int num_sms, cudaStream_t stream) {
  using Config = QueryScanConfig<kDim>;
  const Tensor q(const_cast<__nv_bfloat16*>(select.q), DType::kBF16,
                 {select.num_rows, select.num_q_heads, kDim});
  const int num_items = select.num_blocks * select.group;
  const QueryScanParams params{
      .q_map = make_head_map(q, Config::kHalfRows),
      .means_map =
          make_row_map(select.means, int64_t{select.num_kv_heads} * select.num_padded_candidates,
                       kDim, Config::kTile),
      .select = select,
      .num_items = num_items,
      .num_units = ceil_div(num_items, Config::kNumItems) * select.num_kv_heads};
  const auto kernel = query_scan_kernel<Config>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  Config::kSharedBytes),
             "pbs_select: shared memory");
  const int grid = std::min(params.num_units, num_sms);
  launch_dependent(kernel, dim3(grid), Config::kNumThreads, Config::kSharedBytes, stream, params,
                   "pbs_select");
}

}  // namespace

void scan_queries(const SelectParams& params, int num_sms, cudaStream_t stream) {
  params.head_dim == 64 ? run<64>(params, num_sms, stream) : run<128>(params, num_sms, stream);
}

}  // namespace pbserve::kernels::cuda
