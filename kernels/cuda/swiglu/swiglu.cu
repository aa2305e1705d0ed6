// SwiGLU in one persistent kernel for many rows, else as a product and a pointwise step.
#include "kernels/ops/swiglu.h"

#include "kernels/core/bits.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/aligned_shared.cuh"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/specialize.cuh"
#include "kernels/cuda/device_data.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/stream_state.h"
#include "kernels/cuda/swiglu/swiglu_consume.cuh"
#include "kernels/cuda/swiglu/swiglu_produce.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/ops/activation.h"

namespace pbserve::kernels::cuda {
namespace {

using Config = SwigluConfig;

// More than one pair of tiles, and a power of two: who warms up with those makes every plan that
// cuBLASLt needs below it (ops/linear.h). H200, Llama-3.1-8B: 192 rows take .096 ms in one step and
// .107 in two, 128 .095 and .083, 8,192 at their fastest 2.46 and 2.75.
constexpr int64_t kFusedRowsMin = Config::kClusterSize * Config::kRows + 1;

__global__ void __cluster_dims__(Config::kClusterSize, 1, 1)
    __launch_bounds__(Config::kNumThreads, 1)
        swiglu_kernel(const __grid_constant__ SwigluParams params) {
  extern __shared__ uint8_t raw[];
  auto& shared = aligned_shared<Config::Shared>(raw);
  if (threadIdx.x == 0) shared.init_barriers();
  __syncwarp();
  cluster_meet();  // the other block's barriers are ready
  produce_and_consume<SwigluProducer, SwigluConsumer, Config>(params, shared);
  __syncwarp();
  cluster_sync();  // the other block may still arrive at this one's barriers
}

void run_fused(const SwigluArgs& args, const StreamState& state) {
  const int64_t num_rows = args.y.dim(0);
  const int64_t width = args.y.dim(1);
  const int64_t num_in = args.gate_up.num_in;
  const SwigluParams params{
      .x_map = make_row_map(args.x.data, num_rows, num_in, Config::kRows),
      .weight_map = make_row_map(args.gate_up.packed.data, 2 * width, num_in, Config::kSharedCols),
      .y = device_data<__nv_bfloat16>(args.y),
      .num_rows = static_cast<int32_t>(num_rows),
      .width = static_cast<int32_t>(width),
      .num_steps = static_cast<int32_t>(ceil_div<int64_t>(num_in, kPanelCols)),
      .num_row_pairs =
          static_cast<int32_t>(ceil_div<int64_t>(num_rows, Config::kClusterSize * Config::kRows)),
      .num_col_tiles = static_cast<int32_t>(ceil_div<int64_t>(width, Config::kCols))};
  check_cuda(cudaFuncSetAttribute(swiglu_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  Config::kSharedBytes),
             "swiglu: shared memory");
  const int num_clusters =
      std::min(params.num_row_pairs * params.num_col_tiles, state.num_sms / Config::kClusterSize);
  swiglu_kernel<<<num_clusters * Config::kClusterSize, Config::kNumThreads, Config::kSharedBytes,
                  state.stream>>>(params);
  check_launch("swiglu");
}

// Whether there are rows enough, and they are whole 16-byte vectors, which the copy engine and the
// stores want.
bool is_fusible(const SwigluArgs& args) {
  constexpr int kVector = kVectorOf<__nv_bfloat16>;
  return args.y.dtype == DType::kBF16 && args.y.dim(0) >= kFusedRowsMin &&
         is_vectorizable<kVector>(device_data<__nv_bfloat16>(args.x), args.gate_up.num_in) &&
         is_vectorizable<kVector>(device_data<__nv_bfloat16>(args.y), args.y.dim(1));
}

}  // namespace

void swiglu(const SwigluArgs& args, CudaHandle handle) {
  const StreamState& state = state_of(handle);
  // With determinism every number of rows is worked by one algorithm.
  if (is_fusible(args) && !state.matmul->is_deterministic()) return run_fused(args, state);
  linear({.y = args.scratch, .x = args.x, .weight = args.gate_up, .bias = {}}, handle);
  silu_mul({.y = args.y, .gate_up = args.scratch}, handle);
}

}  // namespace pbserve::kernels::cuda
