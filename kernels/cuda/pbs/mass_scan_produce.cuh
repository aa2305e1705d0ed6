// The producer of the mass scan: a thread that keeps the copy engine busy.
#pragma once

#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/device/tma.cuh"
#include "kernels/cuda/pbs/mass_scan.cuh"

namespace pbserve::kernels::cuda {

template <class Config>
class MassScanProducer {
 public:
  using Shared = typename Config::Shared;

  __device__ MassScanProducer(const MassScanParams& params, Shared& shared)
      : params_(params), shared_(shared) {}

  __device__ void run() {
    wait_for_earlier_kernels();  // the candidates are gathered
    for_each_unit<Config>(params_, [this](const MassUnit& unit) {
      load_queries(unit);
      load_own_keys(unit);
      load_candidates(unit);
      load_candidates(unit);
    });
  }

 private:
  __device__ void load_queries(const MassUnit& unit) {
    shared_.q_empty.wait(q_parity_ ^ 1);
    q_parity_ ^= 1;
    shared_.q_full.arrive_and_expect(Config::kNumConsumers * Config::kTileBytes);
    for (int number = 0; number < Config::kUnitItems; ++number) {
      const MassItem item = item_of(params_, unit, number);
      const int row = (params_.select.first_block + item.block) * Config::kItemRows;
      uint8_t* rows = shared_.q[number / 4] + number % 4 * Config::kItemPanelBytes;
      for (int panel = 0; panel < Config::kPanels; ++panel) {
        tma_load(rows + panel * Config::kPanelBytes, params_.q_map, shared_.q_full,
                 panel * kPanelCols, item.head, row);
      }
    }
  }

  __device__ void load_own_keys(const MassUnit& unit) {
    for (int tile = 0; tile < unit.num_own_tiles; ++tile) {
      const int page = unit.own_begin + tile / Config::kBlockTiles;
      const int row = (page * params_.select.num_kv_heads + unit.kv_head) * kPbsBlock +
                      tile % Config::kBlockTiles * Config::kTile;
      Mbarrier& full = take_stage(Config::kTileBytes);
      load_tile(shared_.means[ring_.stage()], params_.own_map, full, row);
      ring_.advance();
    }
  }

  __device__ void load_candidates(const MassUnit& unit) {
    int row = unit.kv_head * params_.select.num_padded_candidates;
    for (int tile = 0; tile < unit.num_tiles; ++tile, row += Config::kTile) {
      Mbarrier& full = take_stage(3 * Config::kTileBytes);
      load_tile(shared_.means[ring_.stage()], params_.means_map, full, row);
      load_tile(shared_.vars[ring_.stage()], params_.vars_map, full, row);
      load_tile(shared_.firsts[ring_.stage()], params_.firsts_map, full, row);
      ring_.advance();
    }
  }

  __device__ Mbarrier& take_stage(uint32_t num_bytes) {
    shared_.empty[ring_.stage()].wait(ring_.parity() ^ 1);
    Mbarrier& full = shared_.full[ring_.stage()];
    full.arrive_and_expect(num_bytes);
    return full;
  }

  __device__ void load_tile(uint8_t* to, const CUtensorMap& map, Mbarrier& full, int row) {
    for (int panel = 0; panel < Config::kPanels; ++panel) {
      tma_load(to + panel * Config::kPanelBytes, map, full, panel * kPanelCols, row);
    }
  }

  const MassScanParams& params_;
  Shared& shared_;
  StageRing<Config::kStages> ring_;
  uint32_t q_parity_ = 0;
};

}  // namespace pbserve::kernels::cuda
