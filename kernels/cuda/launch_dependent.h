// Launches of a kernel whose blocks may start before the kernel ahead of it in the stream is done
// (CUDA's programmatic dependent launch): device/dependent.cuh is its other half.
#pragma once

#include "kernels/cuda/cuda_check.h"

namespace pbserve::kernels::cuda {

// REQUIRES: each thread that reads or overwrites what earlier kernels have to do with calls
// wait_for_earlier_kernels() first, or waits for a thread of its block that does.
template <class Params>
void launch_dependent(void (*kernel)(Params), dim3 grid, int num_threads, int shared_bytes,
                      cudaStream_t stream, const Params& params, std::string_view op) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(num_threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, params), op);
}

}  // namespace pbserve::kernels::cuda
