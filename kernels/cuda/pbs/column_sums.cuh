// Sums over the rows of a product as wgmma.cuh lays it out, column by column.
#pragma once

#include "kernels/cuda/device/reduce.cuh"

namespace pbserve::kernels::cuda {

// One step of add_columns: of 2 kHalf columns a lane keeps kHalf, with what the lane kHalf away has
// of them.
template <int kHalf>
__device__ __forceinline__ void exchange_columns(float (&columns)[32]) {
  const bool keeps_upper = (threadIdx.x & kHalf) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float lower = columns[i];
    const float upper = columns[i + kHalf];
    const float sent = keeps_upper ? lower : upper;
    columns[i] = (keeps_upper ? upper : lower) + __shfl_xor_sync(kFullWarp, sent, kHalf);
  }
}

// A lane's columns of 128 added up over the eight lanes that hold the same columns, and shared out:
// of its columns 8 i + 2 (l % 4) + {0, 1} lane l is left with those of i = 2 (l / 4) + {0, 1}, in
// the first four places.
__device__ __forceinline__ void add_columns(float (&columns)[32]) {
  exchange_columns<16>(columns);
  exchange_columns<8>(columns);
  exchange_columns<4>(columns);
}

}  // namespace pbserve::kernels::cuda
