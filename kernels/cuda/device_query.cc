// The GPUs of this machine. The runtime is linked statically and finds the driver when first asked,
// so the same program starts on machines without one.
#include <cuda_runtime_api.h>

#include "kernels/core/device.h"
#include "kernels/core/gpu_presence.h"
#include "kernels/cuda/cuda_check.h"

namespace pbserve::kernels::cuda {

const int kRuntimeVersion = CUDART_VERSION;

absl::StatusOr<std::vector<Gpu>> list_gpus() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {  // what CUDA says of an old driver and of none
    int driver_version = 0;
    cudaDriverGetVersion(&driver_version);
    return absl::UnavailableError(unfit_driver(driver_version, kRuntimeVersion));
  }
  RETURN_IF_ERROR(to_status(error, "no GPU answers"));
  std::vector<Gpu> gpus;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    RETURN_IF_ERROR(to_status(cudaGetDeviceProperties(&properties, i), "GPU properties"));
    gpus.push_back({.name = properties.name,
                    .sm_version = properties.major * 10 + properties.minor,
                    .total_bytes = static_cast<int64_t>(properties.totalGlobalMem)});
  }
  if (gpus.empty()) return absl::UnavailableError("this machine has no GPU");
  return gpus;
}

std::string_view why_unsupported(int sm_version) {
  return sm_version == 90 ? "" : "this build's kernels run on Hopper (compute capability 9.0) only";
}

absl::StatusOr<int64_t> free_bytes(int index) {
  RETURN_IF_ERROR(to_status(cudaSetDevice(index), "GPU selection"));
  size_t free = 0;
  size_t total = 0;
  RETURN_IF_ERROR(to_status(cudaMemGetInfo(&free, &total), "GPU memory"));
  return static_cast<int64_t>(free);
}

}  // namespace pbserve::kernels::cuda
