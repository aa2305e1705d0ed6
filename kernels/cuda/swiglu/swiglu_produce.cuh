// The producer of SwiGLU: a thread that keeps the copy engine busy.
#pragma once

#include "kernels/cuda/device/stage_ring.cuh"
#include "kernels/cuda/device/tma.cuh"
#include "kernels/cuda/swiglu/swiglu_tiles.cuh"

namespace pbserve::kernels::cuda {

class SwigluProducer {
 public:
  using Config = SwigluConfig;

  __device__ SwigluProducer(const SwigluParams& params, Config::Shared& shared)
      : params_(params), shared_(shared) {}

  __device__ void run() {
    for_each_tile(params_, [this](const SwigluTile& tile) {
      for (int step = 0; step < params_.num_steps; ++step) load(tile, step * kPanelCols);
    });
  }

 private:
  // The block's rows of x, and for both blocks its half of the columns of gate and of up.
  __device__ void load(const SwigluTile& tile, int at) {
    constexpr uint16_t kBoth = 3;
    const int stage = ring_.stage();
    shared_.empty[stage].wait(ring_.parity() ^ 1);
    Mbarrier& full = shared_.full[stage];
    full.arrive_and_expect(Config::kStageBytes);
    tma_load(shared_.x[stage], params_.x_map, full, at, tile.row);
    const int rank = blockIdx.x % Config::kClusterSize;
    const int row = tile.col + rank * Config::kSharedCols;
    uint8_t* gate = shared_.weights[stage] + rank * Config::kSharedColBytes;
    tma_load_multicast(gate, params_.weight_map, full, at, row, kBoth);
    tma_load_multicast(gate + Config::kColBytes, params_.weight_map, full, at, params_.width + row,
                       kBoth);
    ring_.advance();
  }

  const SwigluParams& params_;
  Config::Shared& shared_;
  StageRing<Config::kStages> ring_;
};

}  // namespace pbserve::kernels::cuda
