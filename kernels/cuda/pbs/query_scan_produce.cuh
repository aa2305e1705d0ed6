// The producer's warpgroup of the query scan: a thread that keeps the copy engine busy, and a warp
// for each consumer that chooses from its weights.
#pragma once

#include "kernels/cuda/device/tma.cuh"
#include "kernels/cuda/pbs/choose_row.cuh"
#include "kernels/cuda/pbs/query_scan.cuh"

namespace pbserve::kernels::cuda {

// One thread runs it.
template <class Config>
class QueryScanProducer {
 public:
  __device__ QueryScanProducer(const QueryScanParams& params, const QueryScanMemory<Config>& memory)
      : params_(params), memory_(memory) {}

  __device__ void run() {
    for_each_unit(params_, [this](int unit) {
      for (int i = 0; i < Config::kNumConsumers; ++i)
        load_queries(item_of<Config>(params_, unit, i), i);
      const int kv_head = unit % params_.select.num_kv_heads;
      const int num_tiles = num_tiles_of<Config>(params_, unit);
      load_means(kv_head, num_tiles);
      load_means(kv_head, num_tiles - 1);  // the last one's scores are still there
    });
  }

 private:
  // As soon as the consumer has the last item's queries in its registers.
  __device__ void load_queries(const QueryItem& item, int consumer) {
    if (item.count == 0) return;
    Mbarrier& full = memory_.fixed.q_full[consumer];
    memory_.fixed.q_empty[consumer].wait(num_items_[consumer]++ % 2 ^ 1);
    full.arrive_and_expect(Config::kTileBytes);
    const int row = (params_.select.first_block + item.block) * Config::kRows;
    for (int panel = 0; panel < Config::kPanels; ++panel) {
      tma_load(memory_.fixed.q[consumer] + panel * Config::kPanelBytes, params_.q_map, full,
               panel * 64, item.head, row);
    }
  }

  __device__ void load_means(int kv_head, int num_tiles) {
    int row = kv_head * params_.select.num_padded_candidates;
    for (int tile = 0; tile < num_tiles;
         ++tile, row += Config::kTile, ring_.advance(params_.num_stages)) {
      Mbarrier& full = memory_.fixed.full[ring_.stage()];
      memory_.fixed.empty[ring_.stage()].wait(ring_.parity() ^ 1);
      full.arrive_and_expect(Config::kTileBytes);
      uint8_t* to = memory_.stage(ring_.stage());
      for (int panel = 0; panel < Config::kPanels; ++panel) {
        tma_load(to + panel * Config::kPanelBytes, params_.means_map, full, panel * 64, row);
      }
    }
  }

  const QueryScanParams& params_;
  const QueryScanMemory<Config>& memory_;
  StageRing ring_;
  uint32_t num_items_[Config::kNumConsumers] = {};
};

// By a whole warp: chooses from the weights of one consumer's items.
template <class Config>
__device__ __forceinline__ void choose_from_items(const QueryScanParams& p,
                                                  const QueryScanMemory<Config>& memory,
                                                  int consumer) {
  const float* weights = memory.weights(p, consumer);
  uint32_t parity = 0;
  for_each_unit(p, [&](int unit) {
    const QueryItem item = item_of<Config>(p, unit, consumer);
    if (item.count == 0) return;
    memory.fixed.weights_full[consumer].wait(parity);
    parity ^= 1;
    const RowChooser chooser(p.select, weights, item.count);
    const unsigned long long num_taken = chooser.run(mask_row(p.select, item.block, item.head));
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    memory.fixed.weights_empty[consumer].arrive();
    atomicAdd(p.select.num_selected, num_taken + num_own_blocks_of(p.select, item.block));
  });
}

}  // namespace pbserve::kernels::cuda
