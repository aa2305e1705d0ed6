// Sums over the rows of a product as wgmma.cuh lays it out, column by column.
#pragma once

#include "kernels/cuda/device/reduce.cuh"

namespace pbserve::kernels::cuda {

// One step of add_columns: of 2 kHalf columns a lane keeps kHalf, with what the lane kDistance away
// has of them.
template <int kHalf, int kDistance, int kSize>
__device__ __forceinline__ void exchange_columns(float (&columns)[kSize]) {
  const bool keeps_upper = (threadIdx.x & kDistance) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float lower = columns[i];
    const float upper = columns[i + kHalf];
    const float sent = keeps_upper ? lower : upper;
    columns[i] = (keeps_upper ? upper : lower) + __shfl_xor_sync(kFullWarp, sent, kDistance);
  }
}

// A lane's kSize columns of 4 kSize added up over the eight lanes that hold the same columns, and
// shared out: of its columns 8 i + 2 (l % 4) + {0, 1} lane l is left with those of the kSize / 16
// values of i from kSize / 16 (l / 4) on, in the first kSize / 8 places.
template <int kSize>
__device__ __forceinline__ void add_columns(float (&columns)[kSize]) {
  exchange_columns<kSize / 2, 16>(columns);
  exchange_columns<kSize / 4, 8>(columns);
  exchange_columns<kSize / 8, 4>(columns);
}

}  // namespace pbserve::kernels::cuda
