// Scorer mass: what its scan gets, its tiles, threads and shared memory.
//
// An item is a query block of two heads: their sampled rows, 32 each, are the 64 rows of a
// warpgroup. A block of threads works a unit, four items of one KV head that follow each other (by
// query block, then by pair of heads), against the same tiles: first those of the own segment's
// keys, then twice those of the candidates' moments, for the rows' log-sum-exp and for the columns'
// sums of squared shares. A candidate's logit to the second order is one product over 2 D elements:
//   scale (q.mean + (scale/2 q^2).var).
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
  SelectParams select;
  int32_t num_pairs;  // of heads of a KV head
  int32_t num_units;  // of all KV heads
  float half_scale;
  float error_squared;  // (1 - threshold)^2
};

template <int kDim>
struct MassScanConfig {
  static constexpr int kHeadDim = kDim;
  static constexpr int kRows = 64;
  static constexpr int kHeadRows = kPbsBlock / kMassStride;  // of a head in a whole query block
  static constexpr int kTile = 64;                           // keys or candidates
  static constexpr int kBlockTiles = kPbsBlock / kTile;
  static constexpr int kNumConsumers = 4;
  static constexpr int kNumThreads = 128 * (1 + kNumConsumers);
  // A block of 640 threads gets 96 x 640 registers: 24 x 128 + 112 x 512 are fewer.
  static constexpr int kProducerRegisters = 24;
  static constexpr int kConsumerRegisters = 112;

  static constexpr int kPanels = kDim / kPanelCols;
  static constexpr uint32_t kPanelBytes = kTile * kPanelRowBytes;
  static constexpr uint32_t kTileBytes = kPanels * kPanelBytes;
  static constexpr uint32_t kHeadPanelBytes = kHeadRows * kPanelRowBytes;
  static_assert(2 * kHeadRows == kRows && kRows == kTile, "queries and keys share their layout");

  static constexpr int kStages = kDim == 64 ? 4 : 2;

  struct Shared {
    alignas(1024) uint8_t q[kNumConsumers][kTileBytes];
    alignas(1024) uint8_t squares[kNumConsumers][kTileBytes];  // scale/2 q^2
    alignas(1024) uint8_t means[kStages][kTileBytes];          // or own keys
    alignas(1024) uint8_t vars[kStages][kTileBytes];
    float partials[kNumConsumers][2][4][kTile];  // sums of a tile's columns: of a warp's rows
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
  int head;       // the first of the pair
  int num_heads;  // 2; 1 at the end of an odd number; 0: there is no such item
  int block;      // of the batch
  int count;      // candidates
};

// Four items and the tiles they meet. The heaviest units, those of the latest query blocks, come
// first; units that run together share moments and lie in the same rows of q.
struct MassUnit {
  int kv_head;
  int first_item;
  int own_begin;  // block of the job where the first item's segment begins
  int num_own_tiles;
  int num_tiles;  // of candidates: as many as the last item has
};

template <class Config>
__device__ __forceinline__ MassItem item_of(const MassScanParams& p, const MassUnit& unit,
                                            int consumer) {
  const SelectParams& select = p.select;
  const int number = unit.first_item + consumer;
  const int block = number / p.num_pairs;
  if (block >= select.num_blocks) return {};
  const int first = number % p.num_pairs * 2;
  return {.head = unit.kv_head * select.group + first,
          .num_heads = min(2, select.group - first),
          .block = block,
          .count = num_candidates_of(select, block)};
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
  unit.first_item = (p.num_units / select.num_kv_heads - 1 - from_last) * Config::kNumConsumers;
  const int first_block = unit.first_item / p.num_pairs;
  const int last_block =
      min((unit.first_item + Config::kNumConsumers - 1) / p.num_pairs, select.num_blocks - 1);
  unit.own_begin = own_begin_of(select, first_block);
  unit.num_own_tiles = (select.first_block + last_block + 1 - unit.own_begin) * Config::kBlockTiles;
  unit.num_tiles = ceil_div(num_candidates_of(select, last_block), Config::kTile);
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
