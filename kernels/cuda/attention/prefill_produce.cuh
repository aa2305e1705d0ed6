// The producer of the prefill kernel: one warp that hands out tiles and keeps the copy engine busy.
#pragma once

#include "kernels/cuda/attention/prefill_config.h"
#include "kernels/cuda/attention/prefill_tile.cuh"
#include "kernels/cuda/device/tma.cuh"

namespace pbserve::kernels::cuda {

template <class Config, bool kIsSparse>
class PrefillProducer {
 public:
  using Shared = typename Config::SharedStorage;

  __device__ PrefillProducer(const PrefillParams& params, Shared& shared)
      : params_(params), shared_(shared), lane_(threadIdx.x % 32) {}

  __device__ void run() {
    for (int round = 0;; ++round) {
      const int index = announce_tile(round);
      if (index >= params_.num_tiles) break;
      const PrefillTile tile = tile_at<Config::kBlockM, kIsSparse>(params_, index);
      load_queries(tile, round);
      if constexpr (kIsSparse) {
        load_own(tile);
        load_candidates(tile);
      } else {
        load_natural(tile);
      }
    }
    if (lane_ == 0) leave();
  }

 private:
  // The next tile, told to the consumers too; one past the last tells them to end.
  __device__ int announce_tile(int round) {
    int index = 0;
    if (lane_ == 0) {
      const int slot = round % Config::kNumTileSlots;
      shared_.tile_empty[slot].wait(round / Config::kNumTileSlots % 2 ^ 1);
      index = atomicAdd(&params_.tile_counter[0], 1);
      shared_.tile[slot] = index;
      shared_.tile_full[slot].arrive();
    }
    return __shfl_sync(0xFFFFFFFFu, index, 0);
  }

  __device__ void load_queries(const PrefillTile& tile, int round) {
    if (lane_ != 0) return;
    shared_.q_empty.wait(round % 2 ^ 1);
    shared_.q_full.arrive_and_expect(Config::kTileBytes);
    for (int panel = 0; panel < Config::kPanels; ++panel) {
      tma_load(shared_.q + panel * Config::kPanelBytes, params_.q_map, shared_.q_full, panel * 64,
               tile.head, tile.row_begin);
    }
  }

  // The lanes fetch 32 page numbers at once: one at a time, their latency would be the pace.
  __device__ void load_natural(const PrefillTile& tile) {
    for (int top = tile.last_block; top >= tile.first_block; top -= 32) {
      const int mine = top - lane_;
      const int page = mine >= tile.first_block ? tile.pages[mine] : 0;
      const int count = min(32, top - tile.first_block + 1);
      for (int i = 0; i < count; ++i) {
        const int row = __shfl_sync(0xFFFFFFFFu, page, i) * params_.num_kv_heads + tile.kv_head;
        load_block(params_.k_map, params_.v_map, row * Config::kBlockN);
      }
    }
  }

  __device__ void load_own(const PrefillTile& tile) {
    for (int block = tile.last_block; block >= tile.first_block; --block) {
      const int row = (block - params_.job_block) * params_.num_kv_heads + tile.kv_head;
      load_block(params_.own_k_map, params_.own_v_map, row * Config::kBlockN);
    }
  }

  // The page of a candidate is known to the lane of its bit, a word ahead of its use.
  __device__ void load_candidates(const PrefillTile& tile) {
    for (int top = tile.num_words - 1; top >= 0; top -= 32) {
      const int mine = top - lane_;
      const uint32_t word = mine >= 0 ? mask_word(tile, mine) : 0;
      const int count = min(32, top + 1);
      uint32_t bits = __shfl_sync(0xFFFFFFFFu, word, 0);
      int page = page_of_bit(tile, top, bits);
      for (int i = 1; i <= count; ++i) {
        const uint32_t next_bits = __shfl_sync(0xFFFFFFFFu, word, i % 32);
        const int next_page = i < count ? page_of_bit(tile, top - i, next_bits) : 0;
        load_word(tile, bits, page);
        bits = next_bits;
        page = next_page;
      }
    }
  }

  __device__ int page_of_bit(const PrefillTile& tile, int word, uint32_t bits) const {
    return bits >> lane_ & 1 ? tile.pages[word * 32 + lane_] : 0;
  }

  __device__ void load_word(const PrefillTile& tile, uint32_t bits, int page) {
    while (bits != 0) {
      const int bit = 31 - __clz(static_cast<int>(bits));
      bits ^= 1u << bit;
      const int row = __shfl_sync(0xFFFFFFFFu, page, bit) * params_.num_kv_heads + tile.kv_head;
      load_block(params_.k_map, params_.v_map, row * Config::kBlockN);
    }
  }

  __device__ void load_block(const CUtensorMap& k_map, const CUtensorMap& v_map, int row) {
    const int stage = step_ % Config::kNumStages;
    const uint32_t free_parity = step_ / Config::kNumStages % 2 ^ 1;
    ++step_;
    if (lane_ != 0) return;
    shared_.k_empty[stage].wait(free_parity);
    load_tile(shared_.k[stage], k_map, shared_.k_full[stage], row);
    shared_.v_empty[stage].wait(free_parity);
    load_tile(shared_.v[stage], v_map, shared_.v_full[stage], row);
  }

  __device__ void load_tile(uint8_t* to, const CUtensorMap& map, Mbarrier& full, int row) {
    full.arrive_and_expect(Config::kTileBytes);
    for (int panel = 0; panel < Config::kPanels; ++panel) {
      tma_load(to + panel * Config::kPanelBytes, map, full, panel * 64, row);
    }
  }

  // The last block to leave sets the counters back for the next launch.
  __device__ void leave() {
    __threadfence();
    if (atomicAdd(&params_.tile_counter[1], 1) == static_cast<int>(gridDim.x) - 1) {
      params_.tile_counter[0] = 0;
      params_.tile_counter[1] = 0;
    }
  }

  const PrefillParams& params_;
  Shared& shared_;
  const int lane_;
  int step_ = 0;  // K/V tiles loaded
};

}  // namespace pbserve::kernels::cuda
