// The product of the antidiagonal scorer: 128 query groups against 256 key groups, each group one
// long vector of stride D elements, of which 64 at a time pass through shared memory.
//
// The tiles lie as device/wgmma.cuh wants them, rows of 64 elements with the 128-byte swizzle, so
// multiply_step can be replaced without its surroundings.
#pragma once

#include "kernels/cuda/device/cp_async.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/mma.cuh"

namespace pbserve::kernels::cuda {

struct GroupTile {
  static constexpr int kM = 128;  // query groups
  static constexpr int kN = 256;  // key groups
  static constexpr int kK = 64;   // elements of the groups in a stage
  static constexpr int kStages = 4;
  static constexpr int kThreads = 256;  // 2 x 4 warps, each with 64 x 64 products
  static constexpr uint32_t kQueryBytes = kM * kK * 2;
  static constexpr uint32_t kStageBytes = (kM + kN) * kK * 2;
  static constexpr int kSharedBytes = kStages * static_cast<int>(kStageBytes);
};

// products[m][n]: rows 16 m of this warp's 64 query groups, columns 8 n of its 64 key groups.
using GroupProducts = float[4][8][4];

// Operands of one step of 16 elements.
struct GroupFragments {
  uint32_t q[4][4];
  uint32_t k[4][4];

  // `step` of the stage, 0 to 3; addresses are those of the stage's first step.
  __device__ __forceinline__ void load(uint32_t q_address, uint32_t k_address, int step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      ldmatrix_x4(q[i], (q_address ^ (32 * step)) + i * 16 * GroupTile::kK * 2);
      ldmatrix_x4(k[i], (k_address ^ (32 * step)) + i * 16 * GroupTile::kK * 2);
    }
  }
};

__device__ __forceinline__ void multiply_step(GroupProducts& products,
                                              const GroupFragments& fragments) {
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int n = m % 2 == 0 ? i : 7 - i;  // neighbours share an operand
      mma(products[m][n], fragments.q[m], fragments.k[n / 2][n % 2 * 2],
          fragments.k[n / 2][n % 2 * 2 + 1]);
    }
  }
}

// Every product is a sum over the elements in ascending order, 16 at a time, wherever the groups
// stand in the tile. copy(idx, stage) starts the copy of elements [64 idx, 64 idx + 64) of all
// groups to a stage: the query groups, then the key groups. All threads of the block call it.
template <class Copy>
__device__ __forceinline__ void multiply_groups(GroupProducts& products, uint32_t stages,
                                                int num_tiles, const Copy& copy) {
  constexpr int kStages = GroupTile::kStages;
  constexpr int kSteps = GroupTile::kK / 16;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const uint32_t q_offset = a_lane_address<GroupTile::kK>(0, warp / 4 * 64, lane);
  const uint32_t k_offset =
      GroupTile::kQueryBytes + b_lane_address<GroupTile::kK>(0, warp % 4 * 64, lane);

#pragma unroll
  for (int idx = 0; idx < kStages - 1; ++idx) {
    if (idx < num_tiles) copy(idx, stages + idx * GroupTile::kStageBytes);
    cp_async_commit();
  }
  cp_async_wait<kStages - 2>();
  __syncthreads();
  GroupFragments fragments[2];
  fragments[0].load(stages + q_offset, stages + k_offset, 0);

#pragma unroll 1
  for (int idx = 0; idx < num_tiles; ++idx) {
    const uint32_t stage = stages + idx % kStages * GroupTile::kStageBytes;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step + 1 < kSteps) {
        fragments[(step + 1) % 2].load(stage + q_offset, stage + k_offset, step + 1);
      } else {
        cp_async_wait<kStages - 2>();
        __syncthreads();  // the next stage has arrived, and this one has been read
        const uint32_t next = stages + (idx + 1) % kStages * GroupTile::kStageBytes;
        fragments[0].load(next + q_offset, next + k_offset, 0);
      }
      if (step == 0) {  // into the stage that was read before this one
        const int ahead = idx + kStages - 1;
        if (ahead < num_tiles) copy(ahead, stages + ahead % kStages * GroupTile::kStageBytes);
        cp_async_commit();
      }
      multiply_step(products, fragments[step % 2]);
    }
  }
}

}  // namespace pbserve::kernels::cuda
