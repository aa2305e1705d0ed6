// The producer of the query scan: a thread that keeps the copy engine busy.
#pragma once

#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/device/tma.cuh"
#include "kernels/cuda/pbs/query_scan.cuh"

namespace pbserve::kernels::cuda {

template <class Config>
class QueryScanProducer {
 public:
  using Shared = typename Config::Shared;

  __device__ QueryScanProducer(const QueryScanParams& params, Shared& shared)
      : params_(params), shared_(shared) {}

  // A unit's queries are asked for amid the unit before: then those of the last but one, in whose
  // place they come, are no longer read. Consumers write when they have had means.
  __device__ void run() {
    load_queries(blockIdx.x);
    wait_for_earlier_kernels();  // the means are gathered, the last batch's weights read
    for_each_unit(params_, [this](int unit) {
      const int kv_head = unit % params_.select.num_kv_heads;
      const int num_tiles = num_tiles_of<Config>(params_, unit);
      load_means(kv_head, num_tiles);
      load_queries(unit + static_cast<int>(gridDim.x));
      load_means(kv_head, num_tiles - 1);  // the last one's scores are still there
    });
  }

 private:
  // Any queries for an item that does not exist.
  __device__ void load_queries(int unit) {
    if (unit >= params_.num_units) return;
    const QueryItem items[2] = {item_of<Config>(params_, unit, 0),
                                item_of<Config>(params_, unit, 1)};
    const int num_tiles = max(items[0].num_tiles, items[1].num_tiles);
    for (int consumer = 0; consumer < Config::kNumConsumers; ++consumer) {
      const QueryItem& item = items[consumer / 2];
      const int stage = queries_.stage();
      Mbarrier& full = shared_.q_full[stage][consumer];
      shared_.q_empty[stage][consumer].wait(queries_.parity() ^ 1);
      shared_.work[stage][consumer] = work_of<Config>(params_, item, num_tiles, consumer);
      full.arrive_and_expect(Config::kHalfBytes);
      const int row = (params_.select.first_block + item.block) * Config::kRows +
                      consumer % 2 * Config::kHalfRows;
      for (int panel = 0; panel < Config::kPanels; ++panel) {
        tma_load(shared_.q[stage][consumer] + panel * Config::kHalfPanelBytes, params_.q_map, full,
                 panel * kPanelCols, item.head, row);
      }
    }
    queries_.advance();
  }

  __device__ void load_means(int kv_head, int num_tiles) {
    int row = kv_head * params_.select.num_padded_candidates;
    for (int tile = 0; tile < num_tiles; ++tile, row += Config::kTile, ring_.advance()) {
      Mbarrier& full = shared_.full[ring_.stage()];
      shared_.empty[ring_.stage()].wait(ring_.parity() ^ 1);
      full.arrive_and_expect(Config::kTileBytes);
      uint8_t* to = shared_.means[ring_.stage()];
      for (int panel = 0; panel < Config::kPanels; ++panel) {
        tma_load(to + panel * Config::kPanelBytes, params_.means_map, full, panel * kPanelCols,
                 row);
      }
    }
  }

  const QueryScanParams& params_;
  Shared& shared_;
  StageRing<Config::kStages> ring_;
  StageRing<Config::kQueryStages> queries_;
};

}  // namespace pbserve::kernels::cuda
