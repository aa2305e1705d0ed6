// What becomes of a CUDA error. At start-up it is a Status; in steady state a failed call means a
// broken program or a poisoned device, and the process dies naming the call.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>

#include "kernels/core/check.h"
#include "kernels/core/status.h"

namespace pbserve::kernels::cuda {

inline std::string error_text(cudaError_t error, std::string_view what) {
  return std::string(what) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error);
}

inline absl::Status to_status(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = error_text(error, what);
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::UnavailableError(text);
}

inline void check_cuda(cudaError_t error, std::string_view what,
                       Location where = Location::current()) {
  if (error != cudaSuccess) [[unlikely]]
    die(error_text(error, what), where);
}

// After every kernel launch. `op` is the operation as callers know it.
inline void check_launch(std::string_view op, Location where = Location::current()) {
  check_cuda(cudaGetLastError(), op, where);
}

}  // namespace pbserve::kernels::cuda
