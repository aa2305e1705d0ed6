// A consumer of the mass scan: one warpgroup. Its warps share products and have an item each.
#pragma once

#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/column_sums.cuh"
#include "kernels/cuda/pbs/mass_scan.cuh"

namespace pbserve::kernels::cuda {

// The low 16 bits at the even places of a word.
__device__ __forceinline__ uint32_t spread_bits(uint32_t bits) {
  bits = (bits | bits << 8) & 0x00ff00ff;
  bits = (bits | bits << 4) & 0x0f0f0f0f;
  bits = (bits | bits << 2) & 0x33333333;
  return (bits | bits << 1) & 0x55555555;
}

template <class Config>
class MassScanConsumer {
 public:
  using Shared = typename Config::Shared;

  __device__ MassScanConsumer(const MassScanParams& params, Shared& shared, int number)
      : params_(params),
        select_(params.select),
        shared_(shared),
        number_(number),
        thread_(threadIdx.x % 128) {}

  __device__ void run() {
    for_each_unit<Config>(params_, [this](const MassUnit& unit) {
      shared_.q_full.wait(q_parity_);
      q_parity_ ^= 1;
      scan(unit, item_of(params_, unit, 4 * number_ + thread_ / 32));
      release(shared_.q_empty);
    });
    if (lane() < 2 && num_selected_ > 0) atomicAdd(select_.num_selected, num_selected_);
  }

 private:
  static constexpr int kDim = Config::kHeadDim;
  static constexpr int kTile = Config::kTile;
  static constexpr int kNumScores = kTile / 2;  // of a thread: two rows'
  using Scores = float[kNumScores];
  static constexpr float kNoTop = -1e30f;  // of lanes that have seen no key
  // A candidate's keys count for B exp(logit), a key by itself for exp(logit): all masses are in
  // units of B.
  static constexpr float kOneKey = -7.f;
  static_assert(kPbsBlock == 1 << 7);

  __device__ void scan(const MassUnit& unit, const MassItem& item) {
    square_queries();
    tops_[0] = tops_[1] = kNoTop;
    row_sums_[0] = row_sums_[1] = 0.f;
    add_own_masses(unit, item);
#pragma unroll 1
    for (int tile = 0; tile < unit.num_tiles; ++tile) {
      Scores means, firsts;
      multiply_candidates(means, firsts);
      const int count = item.count - tile * kTile;
      if (count <= 0) continue;
      mask_behind(means, count);
      mask_behind(firsts, count);
      add_masses(means, 0.f);
      add_masses(firsts, kOneKey);
    }
    const int num_sampled = ceil_div(num_rows_of(select_, item.block), kMassStride);
    finish_rows(num_sampled);

    const float least =
        params_.error_squared / static_cast<float>(item.count) * static_cast<float>(num_sampled);
    uint32_t* words = mask_row(item);
#pragma unroll 1
    for (int tile = 0; tile < unit.num_tiles; ++tile) {
      Scores means, firsts;
      multiply_candidates(means, firsts);
      take(item, tile, least, means, firsts, words);
    }
    finish_mask(item, unit.num_tiles, words);
  }

  // Elements square where they are: the tile of squares is laid out as that of the queries.
  __device__ void square_queries() {
    constexpr int kWords = Config::kTileBytes / 16;
    const auto* from = reinterpret_cast<const uint4*>(shared_.q[number_]);
    auto* to = reinterpret_cast<uint4*>(shared_.squares[number_]);
#pragma unroll
    for (int i = 0; i < kWords / 128; ++i) {
      uint4 word = from[thread_ + i * 128];
      auto* pairs = reinterpret_cast<__nv_bfloat162*>(&word);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 q = __bfloat1622float2(pairs[j]);
        pairs[j] = __floats2bfloat162_rn(params_.spread_scale * q.x * q.x,
                                         params_.spread_scale * q.y * q.y);
      }
      to[thread_ + i * 128] = word;
    }
    fence_async_proxy();
    named_barrier_sync(kWhole + number_, 128);
  }

  // Of the unit's own tiles those of the consumer's segments; of these, those of the item's own up
  // to its block; of the block's own, the keys up to each row's position.
  __device__ void add_own_masses(const MassUnit& unit, const MassItem& item) {
    const auto tile_of = [&](int block) { return (block - unit.own_begin) * Config::kBlockTiles; };
    const int first = tile_of(own_begin_of(select_, item_of(params_, unit, 4 * number_).block));
    const int last = item_of(params_, unit, 4 * number_ + 3).block;
    const int end = tile_of(select_.first_block + last + 1);
    const int begin = tile_of(own_begin_of(select_, item.block));
    const int diagonal = tile_of(select_.first_block + item.block);
    skip(first);
#pragma unroll 1
    for (int tile = first; tile < end; ++tile) {
      Scores scores;
      begin_products();
      multiply(scores, shared_.q[number_], shared_.means[ring_.stage()], Product::kOverwrite);
      end_products(scores);
      if (tile < begin || tile >= diagonal + Config::kBlockTiles) continue;
      if (tile >= diagonal) mask_causally(scores, (tile - diagonal) * kTile);
      add_masses(scores, kOneKey);
    }
    skip(unit.num_own_tiles - end);
  }

  // The logits, in units of 1 / scale, of the tile that the ring stands at: to the second order,
  // and of the first keys.
  __device__ __forceinline__ void multiply_candidates(Scores& means, Scores& firsts) {
    begin_products();
    multiply(means, shared_.q[number_], shared_.means[ring_.stage()], Product::kOverwrite);
    multiply(means, shared_.squares[number_], shared_.vars[ring_.stage()], Product::kAdd);
    multiply(firsts, shared_.q[number_], shared_.firsts[ring_.stage()], Product::kOverwrite);
    end_products(means, firsts);
  }

  __device__ __forceinline__ void begin_products() {
    shared_.full[ring_.stage()].wait(ring_.parity());
    wgmma_fence();
  }

  template <class... AllScores>
  __device__ __forceinline__ void end_products(AllScores&... scores) {
    wgmma_commit();
    wgmma_wait<0>();
    (touch(scores), ...);
    release(shared_.empty[ring_.stage()]);
    ring_.advance();
  }

  __device__ __forceinline__ void multiply(Scores& scores, const uint8_t* rows,
                                           const uint8_t* columns, Product first) {
    const uint64_t a = tile_descriptor(rows, 0);
    const uint64_t b = tile_descriptor(columns, 0);
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      const uint32_t offset = i / 4 * Config::kPanelBytes + i % 4 * 32;
      wgmma_ss(scores, advance(a, offset), advance(b, offset), i == 0 ? first : Product::kAdd);
    }
  }

  __device__ void skip(int num_tiles) {
#pragma unroll 1
    for (int i = 0; i < num_tiles; ++i) {
      shared_.full[ring_.stage()].wait(ring_.parity());
      release(shared_.empty[ring_.stage()]);
      ring_.advance();
    }
  }

  // By one lane of every warp, when the warp has read what the barrier guards.
  __device__ void release(Mbarrier& empty) {
    __syncwarp();
    if (lane() == 0) empty.arrive();
  }

  __device__ int lane() const { return thread_ % 32; }
  __device__ int column_of(int score) const { return thread_ % 4 * 2 + score / 4 * 8 + score % 2; }
  // Of the item's sampled rows: of the upper and the lower row of a thread.
  __device__ int row_of(int r) const { return r * 8 + lane() / 4; }

  __device__ __forceinline__ void mask_behind(Scores& scores, int count) const {
    if (count >= kTile) return;
#pragma unroll
    for (int i = 0; i < kNumScores; ++i) {
      if (column_of(i) >= count) scores[i] = -INFINITY;
    }
  }

  // `first` is the tile's first key, counted in the query block.
  __device__ __forceinline__ void mask_causally(Scores& scores, int first) const {
#pragma unroll
    for (int i = 0; i < kNumScores; ++i) {
      if (first + column_of(i) > row_of(i % 4 / 2) * kMassStride) scores[i] = -INFINITY;
    }
  }

  // A step of the online softmax for the lane's own columns.
  __device__ __forceinline__ void add_masses(const Scores& scores, float offset) {
    const float scale = select_.scale_log2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = scores[2 * r];
#pragma unroll
      for (int i = 0; i < kNumScores; i += 4) {
        most = fmaxf(most, fmaxf(scores[i + 2 * r], scores[i + 2 * r + 1]));
      }
      const float top = fmaxf(tops_[r], fmaf(most, scale, offset));
      float sums[2] = {row_sums_[r] * fast_exp2(tops_[r] - top), 0.f};
#pragma unroll
      for (int i = 0; i < kNumScores; i += 4) {
        sums[i / 4 % 2] += fast_exp2(fmaf(scores[i + 2 * r], scale, offset - top)) +
                           fast_exp2(fmaf(scores[i + 2 * r + 1], scale, offset - top));
      }
      row_sums_[r] = sums[0] + sums[1];
      tops_[r] = top;
    }
  }

  // The log-sum-exp of the rows; of rows that do not exist one that makes all shares 0.
  __device__ void finish_rows(int num_sampled) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float top = warp_reduce<4>(tops_[r], Max());
      const float sum = warp_reduce<4>(row_sums_[r] * fast_exp2(tops_[r] - top), Sum());
      log_sums_[r] = row_of(r) < num_sampled ? top + fast_log2(sum) : INFINITY;
    }
  }

  __device__ __forceinline__ float squared_share(float mean, float first, float log_sum) const {
    const float scale = select_.scale_log2;
    const float share =
        fast_exp2(fmaf(mean, scale, -log_sum)) + fast_exp2(fmaf(first, scale, kOneKey - log_sum));
    return share * share;
  }

  // Lane l decides on the tile's candidates 2 l and 2 l + 1.
  __device__ __forceinline__ void take(const MassItem& item, int tile, float least,
                                       const Scores& means, const Scores& firsts, uint32_t* words) {
    float sums[kTile / 4];
#pragma unroll
    for (int i = 0; i < kTile / 4; ++i) {
      const int at = i / 2 * 4 + i % 2;
      sums[i] = squared_share(means[at], firsts[at], log_sums_[0]) +
                squared_share(means[at + 2], firsts[at + 2], log_sums_[1]);
    }
    add_columns(sums);
    uint32_t taken[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int candidate = tile * kTile + 2 * lane() + i;
      const bool is_always =
          candidate < select_.num_sink_blocks || candidate >= item.count - select_.num_local_blocks;
      taken[i] =
          __ballot_sync(kFullWarp, candidate < item.count && (is_always || sums[i] >= least));
    }
    if (lane() >= 2 || !item.exists) return;
    const int shift = 16 * lane();
    const uint32_t word =
        spread_bits(taken[0] >> shift & 0xffff) | spread_bits(taken[1] >> shift & 0xffff) << 1;
    const int place = tile * kTile / 32 + lane();
    if (place < select_.num_mask_words) words[place] = word;
    num_selected_ += __popc(word);
  }

  __device__ uint32_t* mask_row(const MassItem& item) const {
    const int64_t row = item.head * select_.mask_blocks + select_.first_block + item.block;
    return select_.mask + row * select_.num_mask_words;
  }

  // Words behind the candidates; and the blocks of the own segment count as selected.
  __device__ void finish_mask(const MassItem& item, int num_tiles, uint32_t* words) {
    if (!item.exists) return;
    for (int word = num_tiles * kTile / 32 + lane(); word < select_.num_mask_words; word += 32) {
      words[word] = 0;
    }
    if (lane() == 0) num_selected_ += num_own_blocks_of(select_, item.block);
  }

  static constexpr int kWhole = 1;  // named barrier, and the next three: all warps of a consumer

  const MassScanParams& params_;
  const SelectParams& select_;
  Shared& shared_;
  const int number_;
  const int thread_;  // of the warpgroup
  StageRing<Config::kStages> ring_;
  uint32_t q_parity_ = 0;
  unsigned long long num_selected_ = 0;
  // Of the thread's rows, the upper and the lower one.
  float tops_[2];      // base-2 logits
  float row_sums_[2];  // in units of exp2(top)
  float log_sums_[2];
};

}  // namespace pbserve::kernels::cuda
