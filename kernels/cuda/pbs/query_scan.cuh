// Scorer query: what its scan gets, its tiles, threads and shared memory.
//
// An item is a query block of one head: 128 rows. A block of threads works a unit, two items of one
// KV head that follow each other (by query block, then by head), against the same tiles of mean
// keys: four consumer warpgroups with half an item each. First all tiles pass for the rows'
// log-sum-exp, then again for the columns' sums of weights: shared memory could not hold the scores
// in between. Products and exponentials take the same time, 1,024 clocks for an item and tile, and
// a warp alone on its scheduler is too slow for the exponentials: with two consumers of 128 rows a
// unit took twice as long as its products. Nothing of an item's result depends on the unit or the
// launch it is part of.
#pragma once

#include <cuda.h>

#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/stage_ring.cuh"
#include "kernels/cuda/device/wgmma.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {

struct QueryScanParams {
  CUtensorMap q_map;      // [job rows, Hq, D], boxes of half a query block
  CUtensorMap means_map;  // rows [Hkv num_padded_candidates, D], boxes of a tile
  SelectParams select;
  int32_t num_items;  // of a KV head
  int32_t num_units;  // of all KV heads
};

// What a consumer does of a unit.
struct QueryWork {
  int num_tiles;    // 0: there is no such item
  int num_foreign;  // tiles behind them that the unit's other item needs
  int num_last;     // candidates of the last tile
  int num_rows;     // that exist from the consumer's first row on
  float* sums;      // of weights over the consumer's rows, [num_padded_candidates]
};

template <int kDim>
struct QueryScanConfig {
  static constexpr int kHeadDim = kDim;
  static constexpr int kRows = kPbsBlock;  // of an item
  static constexpr int kHalfRows = kRows / 2;
  static constexpr int kTile = 128;  // candidates
  static constexpr int kNumItems = 2;
  static constexpr int kNumConsumers = 2 * kNumItems;
  static constexpr int kNumThreads = 128 * (1 + kNumConsumers);
  // A block of 640 threads gets 96 x 640 registers: 24 x 128 + 112 x 512 are fewer.
  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 112;

  static constexpr int kPanels = kDim / kPanelCols;
  static constexpr uint32_t kPanelBytes = kTile * kPanelRowBytes;
  static constexpr uint32_t kTileBytes = kPanels * kPanelBytes;
  static constexpr uint32_t kHalfPanelBytes = kHalfRows * kPanelRowBytes;
  static constexpr uint32_t kHalfBytes = kPanels * kHalfPanelBytes;

  static constexpr int kStages = kDim == 64 ? 4 : 2;
  static constexpr int kQueryStages = 2;  // the next unit's queries come while this one's are read

  struct Shared {
    alignas(1024) uint8_t q[kQueryStages][kNumConsumers][kHalfBytes];
    alignas(1024) uint8_t means[kStages][kTileBytes];
    float partials[kNumConsumers][2][4][kTile];   // sums of a tile's columns: of a warp's rows
    QueryWork work[kQueryStages][kNumConsumers];  // comes with the queries
    Mbarrier q_full[kQueryStages][kNumConsumers];
    Mbarrier q_empty[kQueryStages][kNumConsumers];
    Mbarrier full[kStages];
    Mbarrier empty[kStages];

    __device__ void init_barriers() {
      for (int i = 0; i < kQueryStages * kNumConsumers; ++i) {
        q_full[i / kNumConsumers][i % kNumConsumers].init(1);
        q_empty[i / kNumConsumers][i % kNumConsumers].init(4);
      }
      for (int i = 0; i < kStages; ++i) {
        full[i].init(1);
        empty[i].init(4 * kNumConsumers);
      }
      fence_barrier_init();
    }
  };
  static constexpr int kSharedBytes = sizeof(Shared) + 1024;  // to align it by hand
  static_assert(kSharedBytes <= 227 * 1024);
};

// Named barriers of the block; 0 is __syncthreads'.
enum QueryScanBarrier : int {
  kScanTurns = 1,  // and the next three: the consumers issue their products in turns
  kScanWhole = 5,  // and the next three: all warps of one consumer
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

// The producer's division of a unit: a few integer divisions, which would hold up the consumers.
template <class Config>
__device__ __forceinline__ QueryWork work_of(const QueryScanParams& p, const QueryItem& item,
                                             int num_unit_tiles, int consumer) {
  const int half = consumer % 2;
  return {
      .num_tiles = item.num_tiles,
      .num_foreign = num_unit_tiles - item.num_tiles,
      .num_last = item.count - (item.num_tiles - 1) * Config::kTile,
      .num_rows = num_rows_of(p.select, item.block) - half * Config::kHalfRows,
      .sums = masses_of(p.select, item.block, item.head) + half * p.select.num_padded_candidates};
}

// Calls work(unit) for the units of this block of threads.
template <class Work>
__device__ __forceinline__ void for_each_unit(const QueryScanParams& p, const Work& work) {
  for (int unit = blockIdx.x; unit < p.num_units; unit += gridDim.x) work(unit);
}

}  // namespace pbserve::kernels::cuda
