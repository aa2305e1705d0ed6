// A consumer of the mass scan: one warpgroup, an item. Warps 0 and 1 have the first head's rows, 2
// and 3 the second's.
#pragma once

#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/column_sums.cuh"
#include "kernels/cuda/pbs/mass_scan.cuh"

namespace pbserve::kernels::cuda {

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
      const MassItem item = item_of<Config>(params_, unit, number_);
      shared_.q_full.wait(q_parity_);
      q_parity_ ^= 1;
      if (item.num_heads == 0) {
        skip(unit.num_own_tiles + 2 * unit.num_tiles);
      } else {
        scan(unit, item);
      }
      release(shared_.q_empty);
    });
    if (thread_ % 32 == 0 && num_selected_ > 0) atomicAdd(select_.num_selected, num_selected_);
  }

 private:
  static constexpr int kDim = Config::kHeadDim;
  static constexpr int kTile = Config::kTile;
  static constexpr int kNumScores = kTile / 2;  // of a thread: two rows'
  using Scores = float[kNumScores];
  static constexpr float kNoTop = -1e30f;  // of lanes that have seen no key
  // A candidate's mass is B exp(logit), an own key's exp(logit): all are counted in units of B.
  static constexpr float kOwnOffset = -7.f;
  static_assert(kPbsBlock == 1 << 7);

  __device__ void scan(const MassUnit& unit, const MassItem& item) {
    square_queries();
    tops_[0] = tops_[1] = kNoTop;
    row_sums_[0] = row_sums_[1] = 0.f;
    add_own_masses(unit, item);
    const int num_tiles = ceil_div(item.count, kTile);
    for_each_tile(num_tiles, item.count,
                  [this](int, const Scores& scores) { add_masses(scores, 0.f); });
    skip(unit.num_tiles - num_tiles);
    const int num_sampled = ceil_div(num_rows_of(select_, item.block), kMassStride);
    finish_rows(num_sampled);

    const float least =
        params_.error_squared / static_cast<float>(item.count) * static_cast<float>(num_sampled);
    uint32_t* words = mask_row(item);
    for_each_tile(num_tiles, item.count, [&](int tile, const Scores& scores) {
      add_columns_of(scores);
      named_barrier_sync(kWhole + number_, 128);
      take(item, tile, least, words);
      slot_ ^= 1;  // the next sums are told before the next barrier
    });
    skip(unit.num_tiles - num_tiles);
    finish_mask(item, num_tiles, words);
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
        pairs[j] =
            __floats2bfloat162_rn(params_.half_scale * q.x * q.x, params_.half_scale * q.y * q.y);
      }
      to[thread_ + i * 128] = word;
    }
    fence_async_proxy();
    named_barrier_sync(kWhole + number_, 128);
  }

  // Of the unit's own tiles those of the item's own segment up to its block; from the block's own
  // tiles, the keys up to each row's position.
  __device__ void add_own_masses(const MassUnit& unit, const MassItem& item) {
    const int block = select_.first_block + item.block;
    const int begin = (own_begin_of(select_, item.block) - unit.own_begin) * Config::kBlockTiles;
    const int diagonal = (block - unit.own_begin) * Config::kBlockTiles;
    const int end = diagonal + Config::kBlockTiles;
    skip(begin);
#pragma unroll 1
    for (int tile = begin; tile < end; ++tile) {
      Scores scores;
      multiply_tile(scores, false);
      if (tile >= diagonal) mask_causally(scores, (tile - diagonal) * kTile);
      add_masses(scores, kOwnOffset);
    }
    skip(unit.num_own_tiles - end);
  }

  // Calls work(tile, scores) for tiles of `count` candidates; what is none has minus infinity.
  template <class Work>
  __device__ __forceinline__ void for_each_tile(int num_tiles, int count, const Work& work) {
#pragma unroll 1
    for (int tile = 0; tile < num_tiles; ++tile) {
      Scores scores;
      multiply_tile(scores, true);
      mask_behind(scores, count - tile * kTile);
      work(tile, scores);
    }
  }

  // The scores, in units of 1 / scale, of the tile that the ring stands at.
  __device__ __forceinline__ void multiply_tile(Scores& scores, bool has_vars) {
    shared_.full[ring_.stage()].wait(ring_.parity());
    wgmma_fence();
    multiply(scores, shared_.q[number_], shared_.means[ring_.stage()], Product::kOverwrite);
    if (has_vars) {
      multiply(scores, shared_.squares[number_], shared_.vars[ring_.stage()], Product::kAdd);
    }
    wgmma_commit();
    wgmma_wait<0>();
    touch(scores);
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
    if (thread_ % 32 == 0) empty.arrive();
  }

  __device__ int column_of(int score) const { return thread_ % 4 * 2 + score / 4 * 8 + score % 2; }
  // Of the head's sampled rows: of the upper and the lower row of a thread.
  __device__ int head_row_of(int r) const {
    return thread_ / 32 % 2 * 16 + r * 8 + thread_ % 32 / 4;
  }

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
      if (first + column_of(i) > head_row_of(i % 4 / 2) * kMassStride) scores[i] = -INFINITY;
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
      log_sums_[r] = head_row_of(r) < num_sampled ? top + fast_log2(sum) : INFINITY;
    }
  }

  // The sums over a warp's rows of their squared shares for a tile.
  __device__ __forceinline__ void add_columns_of(const Scores& scores) {
    const float scale = 2.f * select_.scale_log2;
    float columns[kTile / 4];
#pragma unroll
    for (int i = 0; i < kTile / 4; ++i) {
      const int at = i / 2 * 4 + i % 2;
      columns[i] = fast_exp2(fmaf(scores[at], scale, -2.f * log_sums_[0])) +
                   fast_exp2(fmaf(scores[at + 2], scale, -2.f * log_sums_[1]));
    }
    add_columns(columns);
    const int lane = thread_ % 32;
    float* own = shared_.partials[number_][slot_][thread_ / 32] + lane / 4 * 8 + lane % 4 * 2;
    *reinterpret_cast<float2*>(own) = {columns[0], columns[1]};
  }

  // A thread decides on a candidate for a head: a warp writes a word of the mask.
  __device__ __forceinline__ void take(const MassItem& item, int tile, float least,
                                       uint32_t* words) {
    const int head = thread_ / 64;
    const int column = thread_ % 64;
    const int candidate = tile * kTile + column;
    const float(&partials)[4][kTile] = shared_.partials[number_][slot_];
    const float sum = partials[2 * head][column] + partials[2 * head + 1][column];
    const bool is_always =
        candidate < select_.num_sink_blocks || candidate >= item.count - select_.num_local_blocks;
    const uint32_t word =
        __ballot_sync(kFullWarp, candidate < item.count && (is_always || sum >= least));
    if (head >= item.num_heads || thread_ % 32 != 0) return;
    if (candidate / 32 < select_.num_mask_words) words[candidate / 32] = word;
    num_selected_ += __popc(word);
  }

  // The row of the mask of the thread's head.
  __device__ uint32_t* mask_row(const MassItem& item) const {
    const int64_t row =
        (item.head + thread_ / 64) * select_.mask_blocks + select_.first_block + item.block;
    return select_.mask + row * select_.num_mask_words;
  }

  // Words behind the candidates; and the blocks of the own segment count as selected.
  __device__ void finish_mask(const MassItem& item, int num_tiles, uint32_t* words) {
    if (thread_ / 64 >= item.num_heads) return;
    for (int word = num_tiles * kTile / 32 + thread_ % 64; word < select_.num_mask_words;
         word += 64) {
      words[word] = 0;
    }
    if (thread_ % 64 == 0) num_selected_ += num_own_blocks_of(select_, item.block);
  }

  static constexpr int kWhole = 1;  // named barrier, and the next three: all warps of a consumer

  const MassScanParams& params_;
  const SelectParams& select_;
  Shared& shared_;
  const int number_;
  const int thread_;  // of the warpgroup
  StageRing<Config::kStages> ring_;
  uint32_t q_parity_ = 0;
  int slot_ = 0;
  unsigned long long num_selected_ = 0;
  // Of the thread's rows, the upper and the lower one.
  float tops_[2];      // base-2 logits
  float row_sums_[2];  // in units of exp2(top)
  float log_sums_[2];
};

}  // namespace pbserve::kernels::cuda
