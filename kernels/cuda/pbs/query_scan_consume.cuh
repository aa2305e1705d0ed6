// A consumer of the query scan: one warpgroup, 64 rows of an item.
#pragma once

#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/column_sums.cuh"
#include "kernels/cuda/pbs/query_scan.cuh"

namespace pbserve::kernels::cuda {

template <class Config>
class QueryScanConsumer {
 public:
  using Shared = typename Config::Shared;

  __device__ QueryScanConsumer(const QueryScanParams& params, Shared& shared, int number)
      : params_(params), shared_(shared), number_(number), thread_(threadIdx.x % 128) {}

  __device__ void run() {
    if (number_ == Config::kNumConsumers - 1) end_turn();
    for_each_unit(params_, [this](int) {
      shared_.q_full[queries_.stage()][number_].wait(queries_.parity());
      const QueryWork work = shared_.work[queries_.stage()][number_];
      if (work.num_tiles == 0) {
        skip(2 * work.num_foreign - 1);
      } else {
        scan(work);
      }
      release(shared_.q_empty[queries_.stage()][number_]);
      queries_.advance();
    });
  }

 private:
  static constexpr int kDim = Config::kHeadDim;
  static constexpr int kTurnThreads = 256;
  static constexpr int kNumScores = Config::kTile / 2;  // of a thread: two rows'
  using Scores = float[kNumScores];
  static constexpr float kNoTop = -1e30f;    // of lanes that have no candidate, to the end
  static constexpr float kSumMax = 0x1p64f;  // of weights up to 1 of the first tile, and later ones

  __device__ void scan(const QueryWork& work) {
    Scores scores;
    const int last = work.num_tiles - 1;
    clear();
#pragma unroll 1
    for (int tile = 0; tile < last; ++tile) {
      multiply_tile(scores, [] {});
      add_row_masses(scores, tile == 0);
    }
    multiply_tile(scores, [] {});
    mask(scores, work.num_last);
    keep_row_masses(scores);
    skip(work.num_foreign);
    finish_rows(work.num_rows);

    // The last tile comes first: its weights are still there, but for a factor of their row.
    add_columns_of([&](int at, int r) { return scores[at] * factors_[r]; });
    float* sums = work.sums + thread_;
    float* written = sums + last * Config::kTile;
#pragma unroll 1
    for (int tile = 0; tile < last; ++tile) {
      multiply_tile(scores, [&] { write_sums(written); });
      written = sums + tile * Config::kTile;
      add_columns_of([&](int at, int r) {
        return fast_exp2(fmaf(scores[at], params_.select.scale_log2, -log_sums_[r]));
      });
    }
    named_barrier_sync(kScanWhole + number_, 128);
    write_sums(written);
    skip(work.num_foreign);
  }

  // The scores of the tile that the ring stands at. They get new variables: what the old ones held
  // need not be kept until here. `meanwhile` runs beside the products, behind a barrier for the
  // threads of this consumer.
  template <class Meanwhile>
  __device__ __forceinline__ void multiply_tile(Scores& scores, const Meanwhile& meanwhile) {
    Scores products;
    shared_.full[ring_.stage()].wait(ring_.parity());
    begin_turn();
    multiply(products);
    end_turn();
    meanwhile();
    wgmma_wait<0>();
    touch(products);
    release(shared_.empty[ring_.stage()]);
    ring_.advance();
#pragma unroll
    for (int i = 0; i < kNumScores; ++i) scores[i] = products[i];
  }

  // By one lane of every warp, after the wait for the products that read the tile.
  __device__ void release(Mbarrier& empty) {
    if (thread_ % 32 == 0) empty.arrive();
  }

  // Without turns all consumers would multiply at the same time and then all leave the tensor
  // cores idle. Every tile of the unit is a turn for each.
  __device__ void begin_turn() { named_barrier_sync(kScanTurns + number_, kTurnThreads); }
  __device__ void end_turn() {
    named_barrier_arrive(kScanTurns + (number_ + 1) % Config::kNumConsumers, kTurnThreads);
  }

  // Tiles that the other item alone needs.
  __device__ void skip(int num_tiles) {
#pragma unroll 1
    for (int i = 0; i < num_tiles; ++i) {
      shared_.full[ring_.stage()].wait(ring_.parity());
      begin_turn();
      end_turn();
      release(shared_.empty[ring_.stage()]);
      ring_.advance();
    }
  }

  // Starts the product of the rows with the tile the ring stands at.
  __device__ __forceinline__ void multiply(Scores& products) {
    const uint64_t q = tile_descriptor(shared_.q[queries_.stage()][number_], 0);
    const uint64_t means = tile_descriptor(shared_.means[ring_.stage()], 0);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      wgmma_ss(products, advance(q, i / 4 * Config::kHalfPanelBytes + i % 4 * 32),
               advance(means, i / 4 * Config::kPanelBytes + i % 4 * 32),
               i == 0 ? Product::kOverwrite : Product::kAdd);
    }
    wgmma_commit();
  }

  __device__ void clear() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
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

  // A step of the online softmax for the lane's own columns. The base of the exponents is the top
  // of the first tile and stays while the sums do not grow out of it: to look for the top of every
  // tile would take a sixth of the pass's instructions.
  __device__ __forceinline__ void add_row_masses(const Scores& scores, bool is_first) {
    if (!is_first) {
      const float upper = sum_masses(scores, 0);
      const float lower = sum_masses(scores, 1);
      if (!__any_sync(kFullWarp, !(fmaxf(upper, lower) < kSumMax))) {
        row_sums_[0] = upper;
        row_sums_[1] = lower;
        return;
      }
    }
    raise_tops(scores);
    row_sums_[0] = sum_masses(scores, 0);
    row_sums_[1] = sum_masses(scores, 1);
  }

  // The same for the last tile: scores become weights in units of exp2(top).
  __device__ __forceinline__ void keep_row_masses(Scores& scores) {
    raise_tops(scores);
#pragma unroll
    for (int i = 0; i < kNumScores; ++i) {
      scores[i] = fast_exp2(fmaf(scores[i], params_.select.scale_log2, -tops_[i % 4 / 2]));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sums[2] = {row_sums_[r], 0.f};
#pragma unroll
      for (int i = 0; i < kNumScores / 4; ++i) {
        sums[i % 2] += scores[4 * i + 2 * r] + scores[4 * i + 2 * r + 1];
      }
      row_sums_[r] = sums[0] + sums[1];
    }
  }

  __device__ __forceinline__ void raise_tops(const Scores& scores) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float tops[2] = {scores[2 * r], scores[2 * r + 1]};
#pragma unroll
      for (int i = 2 * r + 4; i < kNumScores; i += 4) {
        tops[0] = fmaxf(tops[0], scores[i]);
        tops[1] = fmaxf(tops[1], scores[i + 1]);
      }
      const float top = fmaxf(tops_[r], fmaxf(tops[0], tops[1]) * params_.select.scale_log2);
      row_sums_[r] *= fast_exp2(tops_[r] - top);
      tops_[r] = top;
    }
  }

  // Several sums side by side: one chain of 32 additions would be longer than all the exponentials
  // take.
  __device__ __forceinline__ float sum_masses(const Scores& scores, int r) const {
    constexpr int kChains = 4;
    float sums[kChains] = {row_sums_[r]};
#pragma unroll
    for (int i = 0; i < kNumScores / 4; ++i) {
      const int at = 4 * i + 2 * r;
      sums[i % kChains] += fast_exp2(fmaf(scores[at], params_.select.scale_log2, -tops_[r])) +
                           fast_exp2(fmaf(scores[at + 1], params_.select.scale_log2, -tops_[r]));
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  // The log-sum-exp of the rows; of rows that do not exist one that makes all weights 0.
  __device__ void finish_rows(int num_rows) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float top = warp_reduce<4>(tops_[r], Max());
      const float sum = warp_reduce<4>(row_sums_[r] * fast_exp2(tops_[r] - top), Sum());
      const int row = thread_ / 32 * 16 + r * 8 + thread_ % 32 / 4;
      log_sums_[r] = row < num_rows ? top + fast_log2(sum) : INFINITY;
      factors_[r] = fast_exp2(tops_[r] - log_sums_[r]);
    }
  }

  // The sums over a warp's rows of their weights for a tile. weight_at(i, r) is that of scores[i],
  // of row r.
  template <class WeightAt>
  __device__ __forceinline__ void add_columns_of(const WeightAt& weight_at) {
    float columns[Config::kTile / 4];
#pragma unroll
    for (int i = 0; i < Config::kTile / 4; ++i) {
      const int at = i / 2 * 4 + i % 2;
      columns[i] = weight_at(at, 0) + weight_at(at + 2, 1);
    }
    add_columns(columns);
    slot_ ^= 1;
    const int lane = thread_ % 32;
    float* own = shared_.partials[number_][slot_][thread_ / 32] + lane / 4 * 16 + lane % 4 * 2;
    *reinterpret_cast<float2*>(own) = {columns[0], columns[1]};
    *reinterpret_cast<float2*>(own + 8) = {columns[2], columns[3]};
  }

  // Adds the warps' sums, behind a barrier. They lie in two places in turn: the next ones are told
  // before the next barrier.
  __device__ __forceinline__ void write_sums(float* to) {
    const float(&partials)[4][Config::kTile] = shared_.partials[number_][slot_];
    float sum = partials[0][thread_];
#pragma unroll
    for (int warp = 1; warp < 4; ++warp) sum += partials[warp][thread_];
    *to = sum;
  }

  const QueryScanParams& params_;
  Shared& shared_;
  const int number_;  // the unit's item and its half
  const int thread_;  // of the warpgroup
  StageRing<Config::kStages> ring_;
  StageRing<Config::kQueryStages> queries_;
  int slot_ = 0;
  // Of the thread's rows, the upper and the lower one.
  float tops_[2];      // base-2 logits
  float row_sums_[2];  // in units of exp2(top)
  float log_sums_[2];
  float factors_[2];  // exp2(top) over the row's sum
};

}  // namespace pbserve::kernels::cuda
