// A consumer of SwiGLU: one warpgroup, 64 rows of the block's tiles.
#pragma once

#include "kernels/cuda/device/cluster.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/stage_ring.cuh"
#include "kernels/cuda/swiglu/swiglu_tiles.cuh"

namespace pbserve::kernels::cuda {

class SwigluConsumer {
 public:
  using Config = SwigluConfig;

  __device__ SwigluConsumer(const SwigluParams& params, Config::Shared& shared, int number)
      : params_(params), shared_(shared), number_(number), thread_(threadIdx.x % 128) {}

  __device__ void run() {
    for_each_tile(params_, [this](const SwigluTile& tile) {
      Sums sums;
      multiply(sums);
      write(tile, sums);
    });
  }

 private:
  static constexpr int kNumValues = Config::kCols / 2;  // of y, of a thread: two rows'
  using Sums = float[2 * kNumValues];                   // of gate, then of up

  // A step's products run while the next step's operands are waited for.
  __device__ __forceinline__ void multiply(Sums& sums) {
    int last = ring_.stage();
    for (int step = 0; step < params_.num_steps; ++step) {
      const int stage = ring_.stage();
      shared_.full[stage].wait(ring_.parity());
      wgmma_fence();
      const uint64_t x = tile_descriptor(shared_.x[stage] + number_ * Config::kConsumerBytes, 0);
      const uint64_t weights = tile_descriptor(shared_.weights[stage], 0);
#pragma unroll
      for (int i = 0; i < kPanelCols / 16; ++i) {
        wgmma_ss(sums, advance(x, i * 32), advance(weights, i * 32),
                 step == 0 && i == 0 ? Product::kOverwrite : Product::kAdd);
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (step > 0) release(last);
      last = stage;
      ring_.advance();
    }
    wgmma_wait<0>();
    touch(sums);
    release(last);
  }

  // Tells the producers of both blocks: both fill the stage.
  __device__ __forceinline__ void release(int stage) {
    const int lane = thread_ % kWarpSize;
    if (lane < Config::kClusterSize) arrive_at(shared_.empty[stage], lane);
  }

  // A quad of lanes holds 32 columns of a row at a time. They are handed around so that each writes
  // 16 consecutive bytes.
  __device__ __forceinline__ void write(const SwigluTile& tile, const Sums& sums) {
    const int quad_lane = thread_ % 4;
    const int upper = tile.row + number_ * 64 + thread_ / kWarpSize * 16 + thread_ % kWarpSize / 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = upper + 8 * r;
#pragma unroll
      for (int first = 0; first < kNumValues; first += 16) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = joined(sums, first + 4 * i + 2 * r);
        transpose_quad(words);
        const int col = tile.col + 2 * first + 8 * quad_lane;
        if (row >= params_.num_rows || col >= params_.width) continue;
        *reinterpret_cast<uint4*>(params_.y + int64_t{row} * params_.width + col) = {
            words[0], words[1], words[2], words[3]};
      }
    }
  }

  // silu(gate) * up of two columns, rounded.
  __device__ __forceinline__ uint32_t joined(const Sums& sums, int at) const {
    const auto value = [&](int i) {
      const float gate = sums[i];
      return __fdividef(gate, 1.f + fast_exp2(-kLog2E * gate)) * sums[i + kNumValues];
    };
    const __nv_bfloat162 pair = __floats2bfloat162_rn(value(at), value(at + 1));
    return *reinterpret_cast<const uint32_t*>(&pair);
  }

  // Word j of lane i of a quad goes to word i of lane j.
  __device__ __forceinline__ void transpose_quad(uint32_t (&words)[4]) const {
    swap(words[0], words[1], 1);
    swap(words[2], words[3], 1);
    swap(words[0], words[2], 2);
    swap(words[1], words[3], 2);
  }

  // The lane without the bit gives the second and gets the other's first in its place.
  __device__ __forceinline__ void swap(uint32_t& first, uint32_t& second, int bit) const {
    const bool is_upper = (thread_ & bit) != 0;
    const uint32_t got = __shfl_xor_sync(kFullWarp, is_upper ? first : second, bit);
    (is_upper ? first : second) = got;
  }

  const SwigluParams& params_;
  Config::Shared& shared_;
  const int number_;
  const int thread_;  // of the warpgroup
  StageRing<Config::kStages> ring_;
};

}  // namespace pbserve::kernels::cuda
