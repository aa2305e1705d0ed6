// Scorer mass: from what is gathered of the candidates to the bits of the mask, in one persistent
// kernel.

#include "kernels/cuda/device/aligned_shared.cuh"
#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/device/specialize.cuh"
#include "kernels/cuda/launch_dependent.h"
#include "kernels/cuda/pbs/mass_scan_consume.cuh"
#include "kernels/cuda/pbs/mass_scan_produce.cuh"
#include "kernels/cuda/tensor_map.h"

namespace pbserve::kernels::cuda {
namespace {

template <class Config>
__global__ void __launch_bounds__(Config::kNumThreads, 1)
    mass_scan_kernel(const __grid_constant__ MassScanParams params) {
  extern __shared__ uint8_t raw[];
  auto& shared = aligned_shared<typename Config::Shared>(raw);
  if (threadIdx.x == 0) shared.init_barriers();
  __syncthreads();
  produce_and_consume<MassScanProducer<Config>, MassScanConsumer<Config>, Config>(params, shared);
}

template <int kDim>
void run(const SelectParams& select, int num_sms, cudaStream_t stream) {
  using Config = MassScanConfig<kDim>;
  const Tensor q(const_cast<__nv_bfloat16*>(select.q), DType::kBF16,
                 {select.num_rows, select.num_q_heads, kDim});
  const int64_t num_gathered = int64_t{select.num_kv_heads} * select.num_padded_candidates;
  const float error = 1.f - select.threshold;
  const MassScanParams params{
      .q_map = make_sample_map(q, kMassStride, Config::kItemRows),
      .own_map = make_row_map(select.own_k, select.own_pages * select.num_kv_heads * kPbsBlock,
                              kDim, Config::kTile),
      .means_map = make_row_map(select.means, num_gathered, kDim, Config::kTile),
      .vars_map = make_row_map(select.vars, num_gathered, kDim, Config::kTile),
      .firsts_map = make_row_map(select.firsts, num_gathered, kDim, Config::kTile),
      .select = select,
      .num_units =
          ceil_div(select.num_blocks * select.group, Config::kUnitItems) * select.num_kv_heads,
      .spread_scale = kMassSpread / 2 * select.scale_log2 / kLog2E,
      .error_squared = error * error};
  const auto kernel = mass_scan_kernel<Config>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  Config::kSharedBytes),
             "pbs_select: shared memory");
  const int grid = std::min(params.num_units, num_sms);
  launch_dependent(kernel, dim3(grid), Config::kNumThreads, Config::kSharedBytes, stream, params,
                   "pbs_select");
}

}  // namespace

void scan_masses(const SelectParams& params, int num_sms, cudaStream_t stream) {
  params.head_dim == 64 ? run<64>(params, num_sms, stream) : run<128>(params, num_sms, stream);
}

}  // namespace pbserve::kernels::cuda
