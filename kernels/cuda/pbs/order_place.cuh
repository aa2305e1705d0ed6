// The second half of pbs_order: from the scores of keys in shared memory to their places, and from
// the places to the pages.
#pragma once

#include "kernels/cuda/pbs/order_params.h"

namespace pbserve::kernels::cuda {

inline constexpr int kSegmentMax = 256;

// Whole segments of one KV head, at most 256 keys, and the threads that place them.
struct KeyGroup {
  const uint8_t* keys;   // in shared memory
  const uint8_t* order;  // [num_keys]: the place i takes the key order[i]
  int begin;             // of the job; a multiple of B
  int num_keys;          // B or 2 B
  int kv_head;
  int thread;
  int num_threads;  // num_keys D / 8 is a multiple of 8 of it
};

// Scores are the bits of floats that are not negative, so they compare alike. This one is above
// all of them.
inline constexpr uint32_t kScoreOfSink = 0xffffffffu;

// How many keys of a segment come before one: those of higher score, and of equal score at lower
// positions. The threads of a warp have 32 consecutive keys.
__device__ __forceinline__ int rank_of(const uint32_t* scores, int key, int segment) {
  const uint32_t own = scores[key];
  const int warp_begin = key / 32 * 32;
  int rank = 0;
  const auto count = [&](int begin, int end, const auto& comes_before) {
    for (int j = begin; j < end; j += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(scores + j);
      rank += comes_before(four.x, j) + comes_before(four.y, j + 1) + comes_before(four.z, j + 2) +
              comes_before(four.w, j + 3);
    }
  };
  count(0, warp_begin, [&](uint32_t score, int) { return int{score >= own}; });
  count(warp_begin, warp_begin + 32,
        [&](uint32_t score, int j) { return int{score > own || (score == own && j < key)}; });
  count(warp_begin + 32, segment, [&](uint32_t score, int) { return int{score > own}; });
  return rank;
}

// First rows of the group's pages among all rows of k_pages.
struct PageRows {
  int64_t first;
  int64_t second;

  __device__ PageRows(const OrderParams& p, const KeyGroup& group)
      : first(row_of(p, group, 0)),
        second(group.num_keys > kPbsBlock ? row_of(p, group, 1) : first) {}
  __device__ int64_t of_page(int page) const { return page == 0 ? first : second; }
  __device__ int64_t of_place(int place) const {
    return of_page(place / kPbsBlock) + place % kPbsBlock;
  }

 private:
  __device__ static int64_t row_of(const OrderParams& p, const KeyGroup& group, int page) {
    const int64_t number = p.pages[group.begin / kPbsBlock + page];
    return (number * p.num_kv_heads + group.kv_head) * kPbsBlock;
  }
};

// K comes from shared memory, V from the natural rows. Tile::offset(key, chunk) is where 8 elements
// of a key are.
template <int kDim, class Tile>
__device__ __forceinline__ void copy_permuted(const OrderParams& p, const KeyGroup& group,
                                              const PageRows& rows) {
  constexpr int kChunks = kDim / 8;
  constexpr int kBatch = 8;  // loads in flight
  const int num_chunks = group.num_keys * kChunks;
#pragma unroll 1
  for (int first = group.thread; first < num_chunks; first += kBatch * group.num_threads) {
    uint4 values[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int idx = first + j * group.num_threads;
      const int row = group.begin + group.order[idx / kChunks];
      const __nv_bfloat16* from = p.own_v + int64_t{own_row(p, row, group.kv_head)} * kDim;
      values[j] = __ldg(reinterpret_cast<const uint4*>(from) + idx % kChunks);
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int idx = first + j * group.num_threads;
      const int place = idx / kChunks;
      const int64_t to = rows.of_place(place) * kChunks + idx % kChunks;
      const uint32_t offset = Tile::offset(group.order[place], idx % kChunks);
      reinterpret_cast<uint4*>(p.v_pages)[to] = values[j];
      reinterpret_cast<uint4*>(p.k_pages)[to] =
          *reinterpret_cast<const uint4*>(group.keys + offset);
    }
  }
}

// Two elements of the mean and of the variance of B keys.
struct PairMoments {
  __nv_bfloat162 mean;
  __nv_bfloat162 var;
};

// Sums of one element of B keys, in the order of places, and of its distance from the first one.
class ElementSums {
 public:
  __device__ explicit ElementSums(float first) : first_(first) {}
  __device__ void add(float value) {
    const float distance = value - first_;
    sum_ += value;
    distances_ += distance;
    squares_ = fmaf(distance, distance, squares_);
  }
  __device__ float mean() const { return sum_ * (1.f / kPbsBlock); }
  __device__ float var() const {
    const float distance = distances_ * (1.f / kPbsBlock);
    return fmaxf(0.f, squares_ * (1.f / kPbsBlock) - distance * distance);
  }

 private:
  float first_;
  float sum_ = 0.f;
  float distances_ = 0.f;
  float squares_ = 0.f;
};

// word_at(i) are the two elements of the key in place i.
template <class WordAt>
__device__ __forceinline__ PairMoments moments_of(const WordAt& word_at) {
  const float2 first = __bfloat1622float2(word_at(0));
  ElementSums x(first.x), y(first.y);
#pragma unroll 8
  for (int i = 0; i < kPbsBlock; ++i) {
    const float2 pair = __bfloat1622float2(word_at(i));
    x.add(pair.x);
    y.add(pair.y);
  }
  return {__floats2bfloat162_rn(x.mean(), y.mean()), __floats2bfloat162_rn(x.var(), y.var())};
}

// The moments of the group's pages as they will be.
template <int kDim, class Tile>
__device__ __forceinline__ void pool(const OrderParams& p, const KeyGroup& group,
                                     const PageRows& rows) {
  constexpr int kPairs = kDim / 2;
  for (int idx = group.thread; idx < group.num_keys / kPbsBlock * kPairs;
       idx += group.num_threads) {
    const int page = idx / kPairs;
    const int pair = idx % kPairs;
    const uint8_t* order = group.order + page * kPbsBlock;
    const PairMoments moments = moments_of([&](int i) {
      const uint32_t offset = Tile::offset(order[i], pair / 4) + pair % 4 * 4;
      return *reinterpret_cast<const __nv_bfloat162*>(group.keys + offset);
    });
    const int64_t to = rows.of_page(page) / kPbsBlock * kPairs + pair;
    reinterpret_cast<__nv_bfloat162*>(p.k_mean)[to] = moments.mean;
    reinterpret_cast<__nv_bfloat162*>(p.k_var)[to] = moments.var;
  }
}

}  // namespace pbserve::kernels::cuda
