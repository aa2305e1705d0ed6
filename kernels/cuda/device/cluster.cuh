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

}  // namespace pbserve::kernels::cuda
