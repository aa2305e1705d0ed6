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

__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

}  // namespace pbserve::kernels::cuda
