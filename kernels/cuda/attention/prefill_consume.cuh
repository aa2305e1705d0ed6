// A consumer of the prefill kernel: one warpgroup, 64 rows of every tile. Scores, softmax, sum of
// values, with FlashAttention-3's two overlaps: the scores of the next block run beside the values
// of this one, and while one consumer works on its softmax the other's products run.
#pragma once

#include "kernels/cuda/attention/prefill_config.h"
#include "kernels/cuda/attention/prefill_tile.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/wgmma.cuh"

namespace pbserve::kernels::cuda {

template <class Config, bool kIsSparse>
class PrefillConsumer {
 public:
  using Shared = typename Config::SharedStorage;

  __device__ PrefillConsumer(const PrefillParams& params, Shared& shared, int number)
      : params_(params), shared_(shared), number_(number), thread_(threadIdx.x % 128) {}

  __device__ void run() {
    if (number_ == 1) named_barrier_arrive(kTurnOfFirst, kTurnThreads);
    for (int round = 0;; ++round) {
      const int slot = round % Config::kNumTileSlots;
      shared_.tile_full[slot].wait(round / Config::kNumTileSlots % 2);
      const int index = shared_.tile[slot];
      shared_.tile_empty[slot].arrive();
      if (index >= params_.num_tiles) break;
      const PrefillTile tile = tile_at<Config::kBlockM, kIsSparse>(params_, index);
      attend(tile, round);
      store(tile);
    }
  }

 private:
  static constexpr int kDim = Config::kHeadDim;
  static constexpr int kNumScores = Config::kBlockN / 2;  // floats of a thread
  static constexpr int kNumSums = kDim / 2;
  static constexpr int kTurnThreads = 256;

  __device__ void attend(const PrefillTile& tile, int round) {
    const int num_blocks = num_key_blocks(tile);
    const int num_natural = tile.last_block - tile.first_block + 1;
    float scores[kNumScores];
    uint32_t weights[Config::kBlockN / 16][4];
    clear();

    shared_.q_full.wait(round % 2);
    shared_.k_full[stage(step_)].wait(parity(step_));
    wgmma_fence();
    multiply_scores(scores, step_);
    wgmma_commit();
    wgmma_wait<0>();
    touch(scores);
    release(shared_.k_empty[stage(step_)]);
    mask(scores, tile, tile.last_block);
    weigh(scores);
    pack(weights, scores);
    shared_.v_full[stage(step_)].wait(parity(step_));
    clear_missing_values(tile);

    for (int i = 1; i < num_blocks; ++i, ++step_) {
      shared_.k_full[stage(step_ + 1)].wait(parity(step_ + 1));
      named_barrier_sync(kTurnOfFirst + number_, kTurnThreads);
      wgmma_fence();
      multiply_scores(scores, step_ + 1);
      wgmma_commit();
      shared_.v_full[stage(step_)].wait(parity(step_));
      wgmma_fence();
      multiply_values(weights, step_);
      wgmma_commit();
      named_barrier_arrive(kTurnOfSecond - number_, kTurnThreads);
      wgmma_wait<1>();
      touch(scores);
      release(shared_.k_empty[stage(step_ + 1)]);
      if (i < num_natural) mask(scores, tile, tile.last_block - i);
      weigh(scores);
      wgmma_wait<0>();
      touch(sums_);
      release(shared_.v_empty[stage(step_)]);
      rescale();
      pack(weights, scores);
    }
    shared_.q_empty.arrive();
    shared_.v_full[stage(step_)].wait(parity(step_));
    wgmma_fence();
    multiply_values(weights, step_);
    wgmma_commit();
    wgmma_wait<0>();
    touch(sums_);
    release(shared_.v_empty[stage(step_)]);
    ++step_;
  }

  __device__ static int stage(int step) { return step % Config::kNumStages; }
  __device__ static uint32_t parity(int step) { return step / Config::kNumStages % 2; }

  // By one lane of every warp, after the wait for the products that read the tile.
  __device__ void release(Mbarrier& empty) {
    if (thread_ % 32 == 0) empty.arrive();
  }

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kNumSums; ++i) sums_[i] = 0.f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top_[r] = -INFINITY;
      total_[r] = 0.f;
      decay_[r] = 1.f;
    }
  }

  __device__ void multiply_scores(float (&scores)[kNumScores], int step) {
    const uint64_t q = tile_descriptor(shared_.q + number_ * 64 * kPanelRowBytes, 0);
    const uint64_t k = tile_descriptor(shared_.k[stage(step)], 0);
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      const uint32_t offset = i / 4 * Config::kPanelBytes + i % 4 * 32;
      wgmma_ss(scores, advance(q, offset), advance(k, offset),
               i == 0 ? Product::kOverwrite : Product::kAdd);
    }
  }

  __device__ void multiply_values(const uint32_t (&weights)[Config::kBlockN / 16][4], int step) {
    const uint64_t v = tile_descriptor(shared_.v[stage(step)], Config::kPanelBytes);
#pragma unroll
    for (int i = 0; i < Config::kBlockN / 16; ++i) {
      wgmma_rs(sums_, weights[i], advance(v, i * 16 * kPanelRowBytes), Product::kAdd);
    }
  }

  // Keys after a row's own position. What was read there may be anything, NaN too.
  __device__ void mask(float (&scores)[kNumScores], const PrefillTile& tile, int block) {
    const int first_key = block * Config::kBlockN;
    if (first_key + Config::kBlockN - 1 <= tile.position + number_ * 64) return;
    const int upper = tile.position + number_ * 64 + thread_ / 32 * 16 + thread_ % 32 / 4;
    const int key = first_key + thread_ % 4 * 2;
#pragma unroll
    for (int i = 0; i < kNumScores; ++i) {
      const int row = i % 4 < 2 ? upper : upper + 8;
      if (key + i / 4 * 8 + i % 2 > row) scores[i] = -INFINITY;
    }
  }

  // Values of keys that do not exist get weight 0, and 0 x NaN is NaN. Only the last page of a
  // sequence has such, and it is the first block of a tile. Each consumer clears for itself.
  __device__ void clear_missing_values(const PrefillTile& tile) {
    const int num_valid = tile.kv_len - tile.last_block * Config::kBlockN;
    if (num_valid >= Config::kBlockN) return;
    const int begin = num_valid * static_cast<int>(kPanelRowBytes);
    for (int panel = 0; panel < Config::kPanels; ++panel) {
      uint8_t* values = shared_.v[stage(step_)] + panel * Config::kPanelBytes;
      for (int i = begin + thread_ * 16; i < static_cast<int>(Config::kPanelBytes); i += 128 * 16) {
        *reinterpret_cast<uint4*>(values + i) = uint4{};
      }
    }
    fence_async_proxy();
    named_barrier_sync(kWholeFirst + number_, 128);
  }

  // One step of the online softmax: scores become exp(score - top), totals follow; what was summed
  // before is to be multiplied by decay_.
  __device__ void weigh(float (&scores)[kNumScores]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = top_[r];
#pragma unroll
      for (int i = 0; i < kNumScores; i += 4) {
        top = fmaxf(top, fmaxf(scores[i + 2 * r], scores[i + 2 * r + 1]));
      }
      top = warp_reduce<4>(top, Max());
      const float base = top == -INFINITY ? 0.f : top * params_.scale_log2;  // no key as yet
      decay_[r] = fast_exp2(top_[r] * params_.scale_log2 - base);
      top_[r] = top;
      float total = 0.f;
#pragma unroll
      for (int i = 0; i < kNumScores; i += 4) {
#pragma unroll
        for (int j = 2 * r; j < 2 * r + 2; ++j) {
          scores[i + j] = fast_exp2(fmaf(scores[i + j], params_.scale_log2, -base));
          total += scores[i + j];
        }
      }
      total_[r] = total_[r] * decay_[r] + total;
    }
  }

  __device__ void rescale() {
#pragma unroll
    for (int i = 0; i < kNumSums; ++i) sums_[i] *= decay_[i % 4 / 2];
  }

  // The sums of a product are laid out as the left operand of the next.
  __device__ static void pack(uint32_t (&weights)[Config::kBlockN / 16][4],
                              const float (&scores)[kNumScores]) {
#pragma unroll
    for (int i = 0; i < Config::kBlockN / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        weights[i][j] = pack_bf16(scores[8 * i + 2 * j], scores[8 * i + 2 * j + 1]);
      }
    }
  }

  __device__ void store(const PrefillTile& tile) {
    const int64_t row_stride = int64_t{params_.num_q_heads} * kDim;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = total_[r];
      total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
      total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
      const float share = 1.f / total;
      const int row = number_ * 64 + thread_ / 32 * 16 + thread_ % 32 / 4 + 8 * r;
      if (row >= tile.num_rows) continue;
      __nv_bfloat16* out = params_.out + (tile.row_begin + row) * row_stride + tile.head * kDim;
#pragma unroll
      for (int i = 0; i < kNumSums; i += 4) {
        *reinterpret_cast<uint32_t*>(out + i * 2 + thread_ % 4 * 2) =
            pack_bf16(sums_[i + 2 * r] * share, sums_[i + 2 * r + 1] * share);
      }
    }
  }

  const PrefillParams& params_;
  Shared& shared_;
  const int number_;      // 0 or 1
  const int thread_;      // of the warpgroup
  int step_ = 0;          // K/V tiles worked off
  float sums_[kNumSums];  // of weighted values, rows as the product leaves them
  float top_[2];          // largest score of the upper and the lower row
  float total_[2];        // of the weights this thread has seen
  float decay_[2];
};

}  // namespace pbserve::kernels::cuda
