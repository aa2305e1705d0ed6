// Linked in place of device_query.cu when the build has no CUDA.
#include "kernels/core/device.h"
#include "kernels/core/gpu_presence.h"

namespace pbserve::kernels::cuda {

const int kRuntimeVersion = 0;

absl::StatusOr<std::vector<Gpu>> list_gpus() {
  return absl::UnavailableError("this build has no CUDA (configure with -DWITH_CUDA=ON)");
}

absl::StatusOr<int64_t> free_bytes(int) { return list_gpus().status(); }

}  // namespace pbserve::kernels::cuda
