// Tiles from global to shared memory by the copy engine. A tile is a box of a tensor map made by
// tensor_map.h; it completes on an mbarrier that expects its bytes.
#pragma once

#include <cuda.h>

#include "kernels/cuda/device/mbarrier.cuh"

namespace pbserve::kernels::cuda {

// Coordinates count elements, the fastest dimension first. One thread issues a copy.
__device__ inline void tma_load(void* to, const CUtensorMap& map, Mbarrier& barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(x), "r"(y)
      : "memory");
}

__device__ inline void tma_load(void* to, const CUtensorMap& map, Mbarrier& barrier, int x, int y,
                                int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(x), "r"(y), "r"(z)
      : "memory");
}

__device__ inline void tma_load(void* to, const CUtensorMap& map, Mbarrier& barrier, int x, int y,
                                int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

// One read for several blocks of a cluster, those whose rank's bit is set in `ranks`: the box goes
// to the same place in the shared memory of each and completes on the same barrier there.
__device__ inline void tma_load_multicast(void* to, const CUtensorMap& map, Mbarrier& barrier,
                                          int x, int y, uint16_t ranks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
      "l"(&map), "r"(barrier.address()), "r"(x), "r"(y), "h"(ranks)
      : "memory");
}

// Brings consecutive bytes into the L2 cache. REQUIRES: address and size are multiples of 16.
__device__ inline void prefetch_to_l2(const void* from, uint32_t num_bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(num_bytes) : "memory");
}

}  // namespace pbserve::kernels::cuda
