// SwiGLU on Hopper: what its kernel gets, its tiles, threads and shared memory.
//
// A tile of y is 128 rows of 128 columns; its products are 256 columns wide, those of gate and
// those of up, so that a thread has both factors of an element. Two blocks of a cluster work tiles
// of the same columns, one under the other: each reads half of the weights and the copy engine
// gives them to both (the shape of CUTLASS's cooperative kernels, 128 x 256 x 64 in clusters of
// two).
#pragma once

#include <cuda.h>

#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/wgmma.cuh"
#include "kernels/ops/swiglu.h"

namespace pbserve::kernels::cuda {

struct SwigluParams {
  CUtensorMap x_map;       // rows [T, K], boxes of a tile's rows
  CUtensorMap weight_map;  // rows [2 F, K], boxes of half a tile's columns
  __nv_bfloat16* y;        // [T, F]
  int32_t num_rows;        // T
  int32_t width;           // F
  int32_t num_steps;       // of K
  int32_t num_row_pairs;   // of tiles
  int32_t num_col_tiles;
};

struct SwigluConfig {
  static constexpr int kRows = 128;
  static constexpr int kCols = 128;
  static constexpr int kClusterSize = 2;
  static constexpr int kSharedCols = kCols / kClusterSize;  // of gate, and of up: read by a block
  static constexpr int kNumConsumers = 2;                   // warpgroups of 64 rows
  static constexpr int kNumThreads = 128 * (1 + kNumConsumers);
  static constexpr int kProducerRegisters = 40;
  static constexpr int kConsumerRegisters = 232;

  static constexpr uint32_t kRowBytes = kRows * kPanelRowBytes;
  static constexpr uint32_t kColBytes = kCols * kPanelRowBytes;  // of gate, and of up
  static constexpr uint32_t kSharedColBytes = kSharedCols * kPanelRowBytes;
  static constexpr uint32_t kConsumerBytes = 64 * kPanelRowBytes;
  static constexpr uint32_t kStageBytes = kRowBytes + 2 * kColBytes;
  static constexpr int kStages = 4;

  struct Shared {
    alignas(1024) uint8_t x[kStages][kRowBytes];
    alignas(1024) uint8_t weights[kStages][2 * kColBytes];  // gate, then up
    Mbarrier full[kStages];
    Mbarrier empty[kStages];

    __device__ void init_barriers() {
      for (int i = 0; i < kStages; ++i) {
        full[i].init(1);
        empty[i].init(4 * kNumConsumers * kClusterSize);
      }
      fence_barrier_init();
    }
  };
  static constexpr int kSharedBytes = sizeof(Shared) + 1024;  // to align it by hand
  static_assert(kSharedBytes <= 227 * 1024);
};

struct SwigluTile {
  int row;  // the first
  int col;
};

// Rows of tiles come in groups whose x stays in the L2 cache while the weights go by: 8 pairs are
// 16 MB at 4,096 columns of x.
inline constexpr int kGroupPairs = 8;

// Tile `number` of a cluster's, as the block `rank` of it has it.
__device__ __forceinline__ SwigluTile tile_at(const SwigluParams& p, int number, int rank) {
  const int group_tiles = kGroupPairs * p.num_col_tiles;
  const int first_pair = number / group_tiles * kGroupPairs;
  const int num_pairs = min(kGroupPairs, p.num_row_pairs - first_pair);
  const int in_group = number % group_tiles;
  const int pair = first_pair + in_group % num_pairs;
  return {.row = (pair * SwigluConfig::kClusterSize + rank) * SwigluConfig::kRows,
          .col = in_group / num_pairs * SwigluConfig::kCols};
}

// Calls work(tile) for the tiles of this block.
template <class Work>
__device__ __forceinline__ void for_each_tile(const SwigluParams& p, const Work& work) {
  constexpr int kSize = SwigluConfig::kClusterSize;
  const int num_tiles = p.num_row_pairs * p.num_col_tiles;
  const int rank = blockIdx.x % kSize;
  for (int number = blockIdx.x / kSize; number < num_tiles; number += gridDim.x / kSize) {
    work(tile_at(p, number, rank));
  }
}

}  // namespace pbserve::kernels::cuda
