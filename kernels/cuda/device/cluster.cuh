// Clusters of blocks (PTX ISA, barrier.cluster, mapa): blocks on neighbouring multiprocessors that
// reach each other's shared memory, whose addresses are alike in all of them.
#pragma once

#include "kernels/cuda/device/mbarrier.cuh"

namespace pbserve::kernels::cuda {

// All threads of all blocks of the cluster, each warp in step; what was written before is seen
// after it.
__device__ inline void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;\n" ::
          : "memory");
}

// The same where fence_barrier_init() alone came before it: without a fence for what else was
// written, which takes microseconds where copies have been started.
__device__ inline void cluster_meet() {
  asm volatile(
      "barrier.cluster.arrive.relaxed.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;\n" ::
          : "memory");
}

// Arrives at the same barrier of the cluster's block `rank`. Without a fence for ordinary writes:
// it tells that tensor cores have read a tile, so that copies may overwrite it (CUTLASS's consumers
// release their stages so).
__device__ inline void arrive_at(const Mbarrier& barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}\n" ::"r"(barrier.address()),
      "r"(rank)
      : "memory");
}

// The address of a place of this block's shared memory in the cluster's block `rank`.
__device__ inline uint32_t address_in(uint32_t place, int rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(place), "r"(rank));
  return address;
}

// Writes 8 bytes to shared memory of a block of the cluster and lets them complete on a barrier of
// the same block, both by their address_in() it.
__device__ inline void store_async(uint32_t to, float2 value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::
          "r"(to),
      "f"(value.x), "f"(value.y), "r"(barrier)
      : "memory");
}

// Mbarrier::wait() for what other blocks of the cluster have written.
__device__ inline void wait_for_cluster(const Mbarrier& barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(barrier.address()),
      "r"(parity)
      : "memory");
}

}  // namespace pbserve::kernels::cuda
