// Scorer query in one kernel: what it gets, its tiles, threads and shared memory.
//
// An item is a query block of one head: 128 rows. A block of threads works a unit, two items of one
// KV head that follow each other (by query block, then by head), each by a consumer warpgroup,
// against the same tiles of mean keys. First all tiles pass for the rows' log-sum-exp, then again
// for the columns' sums of weights: shared memory could not hold the scores in between. Products
// and exponentials take about the same time, so one consumer multiplies while the other weighs. A
// warp of the producer's warpgroup chooses from an item's weights while its consumer scores the
// next. Nothing of an item's result depends on the unit or the launch it is part of.
#pragma once

#include <cuda.h>

#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {

struct QueryScanParams {
  CUtensorMap q_map;      // [job rows, Hq, D], boxes of the rows of a query block
  CUtensorMap means_map;  // rows [Hkv num_padded_candidates, D], boxes of a tile
  SelectParams select;
  int32_t num_items;  // of a KV head
  int32_t num_units;  // of all KV heads
  int32_t num_stages;
};

template <int kDim>
struct QueryScanConfig {
  static constexpr int kHeadDim = kDim;
  static constexpr int kRows = kPbsBlock;  // of an item
  static constexpr int kTile = 128;        // candidates
  static constexpr int kNumConsumers = 2;
  static constexpr int kNumThreads = 128 * (1 + kNumConsumers);
  // 65,536 registers: 40 x 128 + 232 x 256. A consumer holds 64 of queries and 128 scores.
  static constexpr int kProducerRegisters = 40;
  static constexpr int kConsumerRegisters = 232;

  static constexpr int kPanels = kDim / 64;
  static constexpr uint32_t kPanelBytes = 128 * 128;  // 128 rows of 64 elements
  static constexpr uint32_t kTileBytes = kPanels * kPanelBytes;

  static constexpr int kStagesMax = 4;  // fewer where rows of weights need the room
  static constexpr int kStagesMin = 2;

  // Before the stages, then a row of weights for each consumer.
  struct Shared {
    alignas(1024) uint8_t q[kNumConsumers][kTileBytes];
    float partials[kNumConsumers][2][4][kTile];  // sums of a tile's columns: of a warp's rows
    Mbarrier q_full[kNumConsumers];
    Mbarrier q_empty[kNumConsumers];
    Mbarrier weights_full[kNumConsumers];
    Mbarrier weights_empty[kNumConsumers];
    Mbarrier full[kStagesMax];
    Mbarrier empty[kStagesMax];
  };
  static_assert(sizeof(Shared) % 1024 == 0);

  static constexpr int shared_bytes(int num_stages, int num_padded_candidates) {
    constexpr int kAlignment = 1024;  // by hand
    return kAlignment + static_cast<int>(sizeof(Shared)) +
           num_stages * static_cast<int>(kTileBytes) +
           kNumConsumers * num_padded_candidates * static_cast<int>(sizeof(float));
  }
};

// Named barriers of the block; 0 is __syncthreads'.
enum QueryScanBarrier : int {
  kScanTurnOfFirst = 1,  // the consumers issue their products in turns
  kScanTurnOfSecond = 2,
  kScanWholeFirst = 3,  // all warps of one consumer
  kScanWholeSecond = 4,
};

// The shared memory of a block of threads.
template <class Config>
struct QueryScanMemory {
  typename Config::Shared& fixed;

  static __device__ QueryScanMemory at(uint8_t* raw) {
    const uint32_t misaligned = shared_address(raw) % 1024;
    return {*reinterpret_cast<typename Config::Shared*>(raw +
                                                        (misaligned == 0 ? 0 : 1024 - misaligned))};
  }

  __device__ uint8_t* stage(int i) const {
    return reinterpret_cast<uint8_t*>(&fixed) + sizeof(fixed) + i * Config::kTileBytes;
  }

  // The weights of a consumer's item, [num_padded_candidates].
  __device__ float* weights(const QueryScanParams& p, int consumer) const {
    return reinterpret_cast<float*>(stage(p.num_stages)) +
           consumer * p.select.num_padded_candidates;
  }

  __device__ void init_barriers() const {
    for (int i = 0; i < Config::kNumConsumers; ++i) {
      fixed.q_full[i].init(1);
      fixed.q_empty[i].init(4);
      fixed.weights_full[i].init(128);
      fixed.weights_empty[i].init(1);
    }
    for (int i = 0; i < Config::kStagesMax; ++i) {
      fixed.full[i].init(1);
      fixed.empty[i].init(4 * Config::kNumConsumers);
    }
    fence_barrier_init();
  }
};

// Where a thread stands in the ring of stages.
class StageRing {
 public:
  __device__ int stage() const { return stage_; }
  __device__ uint32_t parity() const { return parity_; }
  __device__ void advance(int num_stages) {
    if (++stage_ < num_stages) return;
    stage_ = 0;
    parity_ ^= 1;
  }

 private:
  int stage_ = 0;
  uint32_t parity_ = 0;
};

struct QueryItem {
  int kv_head;
  int head;
  int block;      // of the batch
  int count;      // candidates; 0: there is no such item
  int num_tiles;  // of candidates
};

// Item `number` of unit `unit`: 0 or 1. The heaviest units, those of the latest query blocks, come
// first; units that run together share mean keys and lie in the same rows of q.
template <class Config>
__device__ __forceinline__ QueryItem item_of(const QueryScanParams& p, int unit, int number) {
  const SelectParams& select = p.select;
  const int pair = (p.num_items + 1) / 2 - 1 - unit / select.num_kv_heads;
  const int kv_head = unit % select.num_kv_heads;
  const int item = 2 * pair + number;
  if (item >= p.num_items) return {kv_head, 0, 0, 0, 0};
  const int block = item / select.group;
  const int count = num_candidates_of(select, block);
  return {kv_head, kv_head * select.group + item % select.group, block, count,
          (count + Config::kTile - 1) / Config::kTile};
}

// Tiles of a pass of the unit: the second item has no fewer than the first.
template <class Config>
__device__ __forceinline__ int num_tiles_of(const QueryScanParams& p, int unit) {
  return max(item_of<Config>(p, unit, 0).num_tiles, item_of<Config>(p, unit, 1).num_tiles);
}

// Calls work(unit) for the units of this block of threads.
template <class Work>
__device__ __forceinline__ void for_each_unit(const QueryScanParams& p, const Work& work) {
  for (int unit = blockIdx.x; unit < p.num_units; unit += gridDim.x) work(unit);
}

}  // namespace pbserve::kernels::cuda
