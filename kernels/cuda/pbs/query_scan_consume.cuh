// A consumer of the query scan: one warpgroup, the 128 rows of an item as two halves of 64. While
// it works on its scores, the tensor cores multiply for the other consumer.
#pragma once

#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/wgmma.cuh"
#include "kernels/cuda/pbs/column_sums.cuh"
#include "kernels/cuda/pbs/query_scan.cuh"

namespace pbserve::kernels::cuda {

template <class Config>
class QueryScanConsumer {
 public:
  __device__ QueryScanConsumer(const QueryScanParams& params, const QueryScanMemory<Config>& memory,
                               int number)
      : params_(params), memory_(memory), number_(number), thread_(threadIdx.x % 128) {}

  __device__ void run() {
    if (number_ == 1) named_barrier_arrive(kScanTurnOfFirst, kTurnThreads);
    for_each_unit(params_, [this](int unit) {
      const int num_tiles = num_tiles_of<Config>(params_, unit);
      const QueryItem item = item_of<Config>(params_, unit, number_);
      if (item.count == 0) {
        skip(2 * num_tiles - 1);
      } else {
        scan(item, num_tiles - item.num_tiles);
      }
    });
  }

 private:
  static constexpr int kDim = Config::kHeadDim;
  static constexpr int kTurnThreads = 256;
  static constexpr int kNumScores = Config::kTile / 2;  // floats of a thread: two rows of a half
  using Scores = float[kNumScores];
  // Of a row without a candidate so far, as some lanes' are to the end. Below any score, and small
  // enough that the rounding of its product, which fmaf gives back, is no large exponent.
  static constexpr float kNoTop = -1e9f;

  // num_foreign: tiles behind the item's that the unit's other item needs.
  __device__ void scan(const QueryItem& item, int num_foreign) {
    Scores upper, lower;
    const int last = item.num_tiles - 1;
    const int num_rows = num_rows_of(params_.select, item.block);
    load_queries();
    clear();
#pragma unroll 1
    for (int tile = 0; tile <= last; ++tile) {
      multiply_tile(upper, lower);
      if (tile == last) {
        mask(upper, item.count - tile * Config::kTile);
        mask(lower, item.count - tile * Config::kTile);
      }
      add_row_masses(upper, 0);
      add_row_masses(lower, 1);
    }
    skip(num_foreign);
    finish_rows(num_rows);

    // The last tile comes first: its scores are still there.
    memory_.fixed.weights_empty[number_].wait(num_items_ % 2 ^ 1);
    share_ = 1.f / static_cast<float>(num_rows);
#pragma unroll 1
    for (int tile = last, num_done = 0; num_done <= last; tile = num_done++) {
      if (num_done > 0) multiply_tile(upper, lower);
      add_column_weights(upper, 0);
      add_column_weights(lower, 1);
      write_weights(tile);
    }
    skip(num_foreign);
    memory_.fixed.weights_full[number_].arrive();
    ++num_items_;
  }

  // The scores of the tile that the ring stands at. They get new variables: what the old ones held
  // need not be kept until here.
  __device__ __forceinline__ void multiply_tile(Scores& upper, Scores& lower) {
    Scores new_upper, new_lower;
    wait_full();
    begin_turn();
    multiply(new_upper, 0);
    multiply(new_lower, 1);
    end_turn();
    wgmma_wait<0>();
    touch(new_upper);
    touch(new_lower);
    release(ring_.stage());
    ring_.advance(params_.num_stages);
#pragma unroll
    for (int i = 0; i < kNumScores; ++i) {
      upper[i] = new_upper[i];
      lower[i] = new_lower[i];
    }
  }

  __device__ void wait_full() { memory_.fixed.full[ring_.stage()].wait(ring_.parity()); }

  // By one lane of every warp, after the wait for the products that read the tile.
  __device__ void release(int stage) {
    if (thread_ % 32 == 0) memory_.fixed.empty[stage].arrive();
  }

  // Without turns both consumers would multiply at the same time and then both leave the tensor
  // cores idle. Every tile of the unit is a turn for both.
  __device__ void begin_turn() { named_barrier_sync(kScanTurnOfFirst + number_, kTurnThreads); }
  __device__ void end_turn() { named_barrier_arrive(kScanTurnOfSecond - number_, kTurnThreads); }

  // Tiles that the other consumer alone needs.
  __device__ void skip(int num_tiles) {
#pragma unroll 1
    for (int i = 0; i < num_tiles; ++i) {
      wait_full();
      begin_turn();
      end_turn();
      release(ring_.stage());
      ring_.advance(params_.num_stages);
    }
  }

  // Starts the product of a half's rows with the tile the ring stands at.
  __device__ __forceinline__ void multiply(Scores& scores, int half) {
    const uint64_t means = tile_descriptor(memory_.stage(ring_.stage()), 0);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      wgmma_rs_rows(scores, q_[half][i], advance(means, i / 4 * Config::kPanelBytes + i % 4 * 32),
                    i == 0 ? Product::kOverwrite : Product::kAdd);
    }
    wgmma_commit();
  }

  // From shared memory, which the next item's queries may then have, into `a` operands.
  __device__ void load_queries() {
    const int lane = thread_ % 32;
    memory_.fixed.q_full[number_].wait(num_items_ % 2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kDim / 16; ++i) {
        const uint32_t panel =
            shared_address(memory_.fixed.q[number_]) + i / 4 * Config::kPanelBytes;
        const uint32_t address = a_lane_address<64>(panel, half * 64 + thread_ / 32 * 16, lane);
        ldmatrix_x4(q_[half][i], address ^ (i % 4 * 32));
      }
    }
    __syncwarp();
    if (lane == 0) memory_.fixed.q_empty[number_].arrive();
  }

  __device__ void clear() {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      tops_[r] = kNoTop;
      row_sums_[r] = 0.f;
    }
  }

  // Columns of the tile from `count` on are no candidates.
  __device__ void mask(Scores& scores, int count) {
    if (count >= Config::kTile) return;
    const int column = thread_ % 4 * 2;
#pragma unroll
    for (int i = 0; i < kNumScores; ++i) {
      if (column + i / 4 * 8 + i % 2 >= count) scores[i] = -INFINITY;
    }
  }

  // A step of the online softmax for the lane's own columns. Several tops and sums side by side:
  // one chain of 64 additions would be longer than all the exponentials take.
  __device__ __forceinline__ void add_row_masses(const Scores& scores, int half) {
    constexpr int kChains = 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float old_top = tops_[2 * half + r];
      float tops[kChains] = {old_top, old_top, old_top, old_top};
#pragma unroll
      for (int i = 0; i < kNumScores / 4; ++i) {
        const int at = 4 * i + 2 * r;
        tops[i % kChains] = fmaxf(tops[i % kChains], fmaxf(scores[at], scores[at + 1]));
      }
      const float top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
      const float base = top * params_.select.scale_log2;
      float sums[kChains] = {
          row_sums_[2 * half + r] * fast_exp2(fmaf(old_top, params_.select.scale_log2, -base))};
#pragma unroll
      for (int i = 0; i < kNumScores / 4; ++i) {
        const int at = 4 * i + 2 * r;
        sums[i % kChains] += fast_exp2(fmaf(scores[at], params_.select.scale_log2, -base)) +
                             fast_exp2(fmaf(scores[at + 1], params_.select.scale_log2, -base));
      }
      tops_[2 * half + r] = top;
      row_sums_[2 * half + r] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
  }

  // The log-sum-exp of the rows; of rows that do not exist one that makes all weights 0.
  __device__ void finish_rows(int num_rows) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      SoftmaxState state{tops_[r] * params_.select.scale_log2, row_sums_[r]};
#pragma unroll
      for (int distance = 2; distance > 0; distance /= 2) {
        state = merged(state, {__shfl_xor_sync(kFullWarp, state.top, distance),
                               __shfl_xor_sync(kFullWarp, state.sum, distance)});
      }
      const int row = r / 2 * 64 + thread_ / 32 * 16 + r % 2 * 8 + thread_ % 32 / 4;
      log_sums_[r] = row < num_rows ? state.top + fast_log2(state.sum) : INFINITY;
    }
  }

  // The sums over a half's rows of their weights for a tile; those of both halves, once the second
  // has come, are the tile's weights. Always in this order, whatever the item's company.
  __device__ __forceinline__ void add_column_weights(const Scores& scores, int half) {
    float columns[Config::kTile / 4];
    const float upper = -log_sums_[2 * half];
    const float lower = -log_sums_[2 * half + 1];
#pragma unroll
    for (int i = 0; i < Config::kTile / 4; ++i) {
      const int at = i / 2 * 4 + i % 2;
      columns[i] = fast_exp2(fmaf(scores[at], params_.select.scale_log2, upper)) +
                   fast_exp2(fmaf(scores[at + 2], params_.select.scale_log2, lower));
    }
    add_columns(columns);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      column_sums_[i] = half == 0 ? columns[i] : column_sums_[i] + columns[i];
    }
  }

  // Adds the warps' sums. The partial sums lie in two places in turn, so that one barrier does.
  __device__ void write_weights(int tile) {
    float(&partials)[4][Config::kTile] = memory_.fixed.partials[number_][slot_];
    slot_ ^= 1;
    const int lane = thread_ % 32;
    float* own = partials[thread_ / 32] + lane / 4 * 16 + lane % 4 * 2;
    *reinterpret_cast<float2*>(own) = {column_sums_[0], column_sums_[1]};
    *reinterpret_cast<float2*>(own + 8) = {column_sums_[2], column_sums_[3]};
    named_barrier_sync(kScanWholeFirst + number_, 128);
    float sum = partials[0][thread_];
#pragma unroll
    for (int warp = 1; warp < 4; ++warp) sum += partials[warp][thread_];
    memory_.weights(params_, number_)[tile * Config::kTile + thread_] = sum * share_;
  }

  const QueryScanParams& params_;
  const QueryScanMemory<Config>& memory_;
  const int number_;  // 0 or 1
  const int thread_;  // of the warpgroup
  StageRing ring_;
  uint32_t num_items_ = 0;
  int slot_ = 0;
  float share_ = 0;  // of a row in the mean
  uint32_t q_[2][kDim / 16][4];
  // Of the thread's rows: (half, upper or lower).
  float tops_[4];
  float row_sums_[4];
  float log_sums_[4];
  float column_sums_[4];
};

}  // namespace pbserve::kernels::cuda
