// Copies of 16 bytes from global to shared memory that threads start and wait for in groups.
#pragma once

#include <cstdint>

namespace pbserve::kernels::cuda {

__device__ __forceinline__ void cp_async_16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Zeros where !exists: nothing is read then.
__device__ __forceinline__ void cp_async_16(uint32_t to, const void* from, bool exists) {
  const int num_bytes = exists ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(num_bytes)
               : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// This thread's groups but the last kPending have arrived; a barrier tells the other threads.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace pbserve::kernels::cuda
