// Prefill attention for Hopper, dense and PBS in one body: a persistent block of one producer warp
// and two consumer warpgroups (the shape of FlashAttention-3's kernel). With every bit of the mask
// set and the natural order PBS does the very same operations as dense.
#pragma once

#include "kernels/cuda/attention/prefill_config.h"
#include "kernels/cuda/attention/prefill_consume.cuh"
#include "kernels/cuda/attention/prefill_produce.cuh"
#include "kernels/cuda/attention/prefill_sm90.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/aligned_shared.cuh"

namespace pbserve::kernels::cuda {

template <class Config>
__device__ inline void init_barriers(typename Config::SharedStorage& shared) {
  constexpr int kConsumerThreads = 128 * Config::kNumConsumers;
  constexpr int kConsumerWarps = 4 * Config::kNumConsumers;
  shared.q_full.init(1);
  shared.q_empty.init(kConsumerThreads);
  for (int i = 0; i < Config::kNumStages; ++i) {
    shared.k_full[i].init(1);
    shared.v_full[i].init(1);
    shared.k_empty[i].init(kConsumerWarps);
    shared.v_empty[i].init(kConsumerWarps);
  }
  for (int i = 0; i < Config::kNumTileSlots; ++i) {
    shared.tile_full[i].init(1);
    shared.tile_empty[i].init(kConsumerThreads);
  }
  fence_barrier_init();
}

template <class Config, bool kIsSparse>
__global__ void __launch_bounds__(Config::kNumThreads, 1)
    prefill_sm90_kernel(const __grid_constant__ PrefillParams params) {
  extern __shared__ uint8_t raw[];
  auto& shared = aligned_shared<typename Config::SharedStorage>(raw);
  if (threadIdx.x == 0) init_barriers<Config>(shared);
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Config::kProducerRegisters));
    if (threadIdx.x < 32) PrefillProducer<Config, kIsSparse>(params, shared).run();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Config::kConsumerRegisters));
    PrefillConsumer<Config, kIsSparse>(params, shared, warpgroup - 1).run();
  }
}

template <int kHeadDim, bool kIsSparse>
void launch_prefill_sm90(const PrefillParams& params, int num_sms, cudaStream_t stream) {
  using Config = PrefillConfig<kHeadDim>;
  const cudaError_t allowed =
      cudaFuncSetAttribute(prefill_sm90_kernel<Config, kIsSparse>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Config::kSharedBytes);
  check_cuda(allowed, "shared memory of the prefill kernel");
  const int grid = params.num_tiles < num_sms ? params.num_tiles : num_sms;
  prefill_sm90_kernel<Config, kIsSparse>
      <<<grid, Config::kNumThreads, Config::kSharedBytes, stream>>>(params);
  check_launch(kIsSparse ? "pbs_prefill" : "prefill_attention");
}

}  // namespace pbserve::kernels::cuda
