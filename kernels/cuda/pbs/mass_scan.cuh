// Scorer mass: what its scan gets, its tiles, threads and shared memory.
//
// An item is a query block of one head: its sampled rows are a warp's 16 of a warpgroup's product.
// A block of threads works a unit, 16 items of one KV head that follow each other (by query block,
// then by head), against the same tiles: first those of the own segment's keys, then twice those of
// the candidates, for the rows' log-sum-exp and for the columns' sums of squared shares. A
// candidate's logit to the second order is one product over 2 D elements:
//   scale (q.mean + (spread_scale q^2).var).
// Nothing of an item's result depends on the unit or the launch it is part of.
#pragma once

#include <cuda.h>

#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/stage_ring.cuh"
#include "kernels/cuda/device/wgmma.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {

struct MassScanParams {
  CUtensorMap q_map;      // the sampled rows of [job rows, Hq, D], boxes of a query block's
  CUtensorMap own_map;    // rows [own_pages Hkv B, D], boxes of a tile
  CUtensorMap means_map;  // rows [Hkv num_padded_candidates, D], boxes of a tile
  CUtensorMap vars_map;
  CUtensorMap firsts_map;
  SelectParams select;
  int32_t num_units;    // of all KV heads
  float spread_scale;   // kMassSpread / 2 times scale
  float error_squared;  // (1 - threshold)^2
};

template <int kDim>
struct MassScanConfig {
  static constexpr int kHeadDim = kDim;
  static constexpr int kItemRows = kPbsBlock / kMassStride;  // sampled, of a whole query block
  static constexpr int kTile = 64;                           // keys or candidates
  static constexpr int kBlockTiles = kPbsBlock / kTile;
  static constexpr int kNumConsumers = 4;
  static constexpr int kUnitItems = 4 * kNumConsumers;
  static constexpr int kNumThreads = 128 * (1 + kNumConsumers);
  // A block of 640 threads gets 96 x 640 registers: 24 x 128 + 112 x 512 are fewer.
  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 112;

  static constexpr int kPanels = kDim / kPanelCols;
  static constexpr uint32_t kPanelBytes = kTile * kPanelRowBytes;
  static constexpr uint32_t kTileBytes = kPanels * kPanelBytes;
  static constexpr uint32_t kItemPanelBytes = kItemRows * kPanelRowBytes;
  static_assert(kItemRows == 16, "a warp has so many rows of a product");
  static_assert(4 * kItemRows == kTile, "queries and keys share their layout");

  static constexpr int kStages = kDim == 64 ? 4 : 2;

  struct Shared {
    alignas(1024) uint8_t q[kNumConsumers][kTileBytes];
    alignas(1024) uint8_t squares[kNumConsumers][kTileBytes];  // spread_scale q^2
    alignas(1024) uint8_t means[kStages][kTileBytes];          // or own keys
    alignas(1024) uint8_t vars[kStages][kTileBytes];
    alignas(1024) uint8_t firsts[kStages][kTileBytes];
    Mbarrier q_full;
    Mbarrier q_empty;
    Mbarrier full[kStages];
    Mbarrier empty[kStages];

    __device__ void init_barriers() {
      q_full.init(1);
      q_empty.init(4 * kNumConsumers);
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

struct MassItem {
  int head;
  int block;    // of the batch
  int count;    // candidates
  bool exists;  // else the others are those of the last item that does
};

// Items and the tiles they meet. The heaviest units, those of the latest query blocks, come first;
// units that run together share candidates and lie in the same rows of q.
struct MassUnit {
  int kv_head;
  int first_item;
  int own_begin;  // block of the job where the first item's segment begins
  int num_own_tiles;
  int num_tiles;  // of candidates: as many as the last item has
};

__device__ __forceinline__ MassItem item_of(const MassScanParams& p, const MassUnit& unit,
                                            int number) {
  const SelectParams& select = p.select;
  const int last = select.num_blocks * select.group - 1;
  const int item = min(unit.first_item + number, last);
  const int block = item / select.group;
  return {.head = unit.kv_head * select.group + item % select.group,
          .block = block,
          .count = num_candidates_of(select, block),
          .exists = unit.first_item + number <= last};
}

// Where a query block's own segment begins, in blocks of the job.
__device__ __forceinline__ int own_begin_of(const SelectParams& p, int block) {
  return num_candidates_of(p, block) - p.job_block;
}

template <class Config>
__device__ __forceinline__ MassUnit unit_of(const MassScanParams& p, int number) {
  const SelectParams& select = p.select;
  MassUnit unit{.kv_head = number % select.num_kv_heads};
  const int from_last = number / select.num_kv_heads;
  unit.first_item = (p.num_units / select.num_kv_heads - 1 - from_last) * Config::kUnitItems;
  const MassItem first = item_of(p, unit, 0);
  const MassItem last = item_of(p, unit, Config::kUnitItems - 1);
  unit.own_begin = own_begin_of(select, first.block);
  unit.num_own_tiles = (select.first_block + last.block + 1 - unit.own_begin) * Config::kBlockTiles;
  unit.num_tiles = ceil_div(last.count, Config::kTile);
  return unit;
}

// Calls work(unit) for the units of this block of threads.
template <class Config, class Work>
__device__ __forceinline__ void for_each_unit(const MassScanParams& p, const Work& work) {
  for (int number = blockIdx.x; number < p.num_units; number += gridDim.x) {
    work(unit_of<Config>(p, number));
  }
}

}  // namespace pbserve::kernels::cuda
