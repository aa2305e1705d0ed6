// A block's dynamic shared memory, from the first multiple of 1,024 bytes on: tiles with 128-byte
// swizzle repeat so, and the runtime aligns to less. What is launched has 1,024 bytes more for it.
#pragma once

#include <cstdint>

#include "kernels/cuda/device/mbarrier.cuh"

namespace pbserve::kernels::cuda {

template <class Shared>
__device__ __forceinline__ Shared& aligned_shared(uint8_t* raw) {
  const uint32_t misaligned = shared_address(raw) % 1024;
  return *reinterpret_cast<Shared*>(raw + (misaligned == 0 ? 0 : 1024 - misaligned));
}

}  // namespace pbserve::kernels::cuda
