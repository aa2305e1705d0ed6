// Barriers in shared memory that asynchronous copies complete on (PTX ISA, mbarrier), and the named
// barriers of a block.
#pragma once

#include <cstdint>

namespace pbserve::kernels::cuda {

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

class Mbarrier {
 public:
  // One thread; followed by fence_barrier_init() and a block barrier.
  __device__ void init(uint32_t num_arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(num_arrivals));
  }

  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
  }

  // Arrives, and lets the phase wait for so many bytes of copies besides.
  __device__ void arrive_and_expect(uint32_t num_bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()),
                 "r"(num_bytes)
                 : "memory");
  }

  // Returns once the phase of this parity is complete; at once for the phase before the first.
  __device__ void wait(uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra over;\n"
        "bra again;\n"
        "over:\n"
        "}\n" ::"r"(address()),
        "r"(parity)
        : "memory");
  }

  __device__ uint32_t address() const { return shared_address(this); }

 private:
  uint64_t state_;
};

__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Ordinary writes to shared memory before it are seen by tensor cores and copy engines after it.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Barrier `id` of the block for `num_threads` threads; 0 is __syncthreads' own.
__device__ inline void named_barrier_sync(int id, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}
__device__ inline void named_barrier_arrive(int id, int num_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

}  // namespace pbserve::kernels::cuda
