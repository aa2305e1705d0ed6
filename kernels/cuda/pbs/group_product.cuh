// The product of the antidiagonal scorer: 128 query groups against 256 key groups, each group one
// long vector of stride D elements, of which 64 at a time pass through shared memory.
//
// The shape is that of CUTLASS's and DeepGEMM's products for this chip: one thread keeps a ring of
// stages filled by the copy engine, two warpgroups multiply 64 query groups each with all key
// groups. Tensor cores at their full rate finish a stage of 48 KB every 1,024 clocks. Two blocks of
// a cluster, with different query groups, therefore share the key groups, each fetching half of
// them for both: 32 bytes per clock and multiprocessor from the L2 cache instead of 48.
#pragma once

#include "kernels/cuda/device/cluster.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/wgmma.cuh"

namespace pbserve::kernels::cuda {

struct GroupTile {
  static constexpr int kM = 128;  // query groups of a block
  static constexpr int kN = 256;  // key groups of a cluster
  static constexpr int kK = 64;   // elements of the groups in a stage
  static constexpr int kStages = 4;
  static constexpr int kLag = 2;  // stages that the second consumer starts behind the first
  static constexpr int kClusterSize = 2;
  static constexpr int kClusterM = kClusterSize * kM;
  static constexpr int kKeyBox = kN / kClusterSize;  // key groups that a block fetches for all
  static constexpr int kNumConsumers = 2;
  static constexpr int kThreads = 128 * (1 + kNumConsumers);
  // 65,536 registers: 40 x 128 + 232 x 256. A consumer holds 128 products.
  static constexpr int kProducerRegisters = 40;
  static constexpr int kConsumerRegisters = 232;
  static constexpr uint32_t kQueryBytes = kM * kPanelRowBytes;
  static constexpr uint32_t kKeyBytes = kN * kPanelRowBytes;
};

// The blocks of a cluster have it at the same address.
struct GroupShared {
  alignas(1024) uint8_t q[GroupTile::kStages][GroupTile::kQueryBytes];
  alignas(1024) uint8_t k[GroupTile::kStages][GroupTile::kKeyBytes];
  Mbarrier full[GroupTile::kStages];   // of this block
  Mbarrier empty[GroupTile::kStages];  // the consumers of all blocks have read the stage

  __device__ void init_barriers() {
    for (int i = 0; i < GroupTile::kStages; ++i) {
      full[i].init(1);
      empty[i].init(GroupTile::kClusterSize * GroupTile::kNumConsumers * 4);
    }
    fence_barrier_init();
  }
};

// A consumer's products of its 64 query groups, as wgmma.cuh lays them out.
using GroupProducts = float[GroupTile::kN / 2];

// Where a thread stands in the ring: the stage, and the parity of its passes through it.
class GroupRing {
 public:
  __device__ int stage() const { return step_ % GroupTile::kStages; }
  __device__ uint32_t parity() const { return step_ / GroupTile::kStages % 2; }
  __device__ bool at_start() const { return step_ == 0; }
  __device__ void advance() { ++step_; }

 private:
  uint32_t step_ = 0;
};

// To the producers of all blocks, by one lane of every warp for each.
__device__ inline void release(Mbarrier& empty) {
  const int lane = threadIdx.x % 32;
  if (lane < GroupTile::kClusterSize) arrive_at(empty, lane);
}

// Every product is a sum over the elements in ascending order, 16 at a time, wherever the groups
// stand in the tile. The warpgroup `consumer` calls it.
__device__ inline void multiply_groups(GroupProducts& products, GroupShared& shared,
                                       GroupRing& ring, int consumer, int num_stages) {
  // The lag tends to stay: while one consumer reduces its products, the tensor cores work for the
  // other.
  if (ring.at_start()) shared.full[consumer * GroupTile::kLag].wait(0);
  int last_stage = 0;
#pragma unroll 1
  for (int i = 0; i < num_stages; ++i) {
    const int stage = ring.stage();
    const uint64_t q = tile_descriptor(shared.q[stage] + consumer * 64 * kPanelRowBytes, 0);
    const uint64_t k = tile_descriptor(shared.k[stage], 0);
    shared.full[stage].wait(ring.parity());
    wgmma_fence();
    wgmma_ss(products, q, k, i == 0 ? Product::kOverwrite : Product::kAdd);
#pragma unroll
    for (int step = 1; step < GroupTile::kK / 16; ++step) {
      wgmma_ss(products, advance(q, step * 32), advance(k, step * 32), Product::kAdd);
    }
    wgmma_commit();
    wgmma_wait<1>();  // the products of the stage before, which are read no more
    if (i > 0) release(shared.empty[last_stage]);
    last_stage = stage;
    ring.advance();
  }
  wgmma_wait<0>();
  touch(products);
  release(shared.empty[last_stage]);
}

}  // namespace pbserve::kernels::cuda
