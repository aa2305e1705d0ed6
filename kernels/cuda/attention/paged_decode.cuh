// Decode over a paged KV cache, bound by the speed of reading it. A persistent block of four warps
// walks the items of decode_items.cuh. Each warp owns 16 of every 64 tokens and feeds itself: it
// starts the copies into its own ring of shared memory, waits for them, and keeps a softmax of its
// own, so the warps meet only at the end of an item. Copies run ahead across items.
//
// The query heads of a key head are the rows of one product (FlashAttention-3's packed GQA).
#pragma once

#include <algorithm>

#include "kernels/cuda/attention/decode_items.cuh"
#include "kernels/cuda/attention/paged_decode.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/cp_async.cuh"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/softmax.cuh"

namespace pbserve::kernels::cuda {

template <int kDim>
struct PagedDecodeConfig {
  static constexpr int kHeadDim = kDim;
  static constexpr int kNumWarps = 4;
  static constexpr int kNumThreads = kNumWarps * kWarpSize;
  static constexpr int kPage = 128;  // tokens
  static constexpr int kSlice = 16;  // tokens of a warp in a step
  static constexpr int kStep = kSlice * kNumWarps;
  static constexpr int kSliceBytes = kSlice * kHeadDim * 2;  // of K; V has as many
  // 24 KB a warp: two blocks fit on a multiprocessor and have at least 128 KB in flight.
  static constexpr int kNumStages = 24 * 1024 / (2 * kSliceBytes);
  static constexpr int kBlocksPerSm = 2;
  static constexpr int kMergeRows = 8;  // heads merged at a time

  struct SharedStorage {
    alignas(256) uint8_t rings[kNumWarps][kNumStages][2][kSliceBytes];
    float merged[kNumWarps][kMergeRows][kHeadDim];
    float tops[kNumWarps][kHeadTile];
    float sums[kNumWarps][kHeadTile];
  };
  static_assert(kPage % kStep == 0, "a step stays within a page");
  static_assert(kBlocksPerSm * (sizeof(SharedStorage) + 1024) <= 228 * 1024);
};

// Starts the copies of a warp's slices, in the order in which the warp will want them.
template <class Config>
class SliceLoader {
 public:
  __device__ SliceLoader(const DecodeParams& params, uint32_t ring)
      : params_(params),
        items_(params),
        item_idx_(static_cast<int32_t>(blockIdx.x)),
        ring_(ring),
        has_item_(items_.seek(item_idx_, item_)) {
    if (has_item_) start_item();
  }

  // The next slice into the next stage, as one group of copies; past the last one an empty group.
  __device__ void issue() {
    if (has_item_) {
      copy_slice();
      advance();
    }
    cp_async_commit();
    stage_ = stage_ + 1 == Config::kNumStages ? 0 : stage_ + 1;
  }

 private:
  static constexpr int kDim = Config::kHeadDim;
  static constexpr int kChunks = kDim / 8;  // 16-byte chunks of a token
  static constexpr int kTokensAtOnce = kWarpSize / kChunks;

  // Slots past the context are filled with zeros: what a page holds there must not be read.
  __device__ void copy_slice() {
    const int32_t page =
        __shfl_sync(kFullWarp, lane_page_, position_ / Config::kPage - first_page_);
    const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
    const int slot = position_ % Config::kPage + warp * Config::kSlice + lane / kChunks;
    const int64_t page_row = (int64_t{page} * params_.num_kv_heads + item_.kv_head) * Config::kPage;
    const int64_t from = (page_row + slot) * kDim + lane % kChunks * 8;
    const uint32_t to = ring_ + stage_ * (2 * Config::kSliceBytes);
    const int num_tokens = item_.end - (position_ + warp * Config::kSlice);  // may be negative
#pragma unroll
    for (int i = 0; i < Config::kSlice; i += kTokensAtOnce) {
      const int token = i + lane / kChunks;
      const uint32_t offset = tile_offset<kDim>(token, lane % kChunks);
      cp_async_16(to + offset, params_.k_pages + from + i * kDim, token < num_tokens);
    }
#pragma unroll
    for (int i = 0; i < Config::kSlice; i += kTokensAtOnce) {
      const int token = i + lane / kChunks;
      const uint32_t offset = Config::kSliceBytes + tile_offset<kDim>(token, lane % kChunks);
      cp_async_16(to + offset, params_.v_pages + from + i * kDim, token < num_tokens);
    }
  }

  // Reads page numbers a step before they are needed.
  __device__ void advance() {
    position_ += Config::kStep;
    if (position_ >= item_.end) {
      item_idx_ += static_cast<int32_t>(gridDim.x);
      has_item_ = items_.seek(item_idx_, item_);
      if (has_item_) start_item();
    } else if (position_ / Config::kPage - first_page_ == kWarpSize) {
      load_pages();
    }
  }

  __device__ void start_item() {
    position_ = item_.begin;
    load_pages();
  }

  // Each lane holds the number of one page, from that of `position_` on.
  __device__ void load_pages() {
    first_page_ = position_ / Config::kPage;
    const int32_t page = first_page_ + static_cast<int32_t>(threadIdx.x % kWarpSize);
    const int32_t* table = params_.block_tables + int64_t{item_.row} * params_.max_pages;
    lane_page_ = page * Config::kPage < item_.end ? table[page] : 0;
  }

  const DecodeParams& params_;
  DecodeItems items_;
  DecodeItem item_{};
  int32_t item_idx_;
  uint32_t ring_;
  bool has_item_;
  int32_t position_ = 0;  // of the block's next step
  int32_t first_page_ = 0;
  int32_t lane_page_ = 0;
  int stage_ = 0;
};

// Attention of up to 16 heads of one row to one warp's slices. Lane l has the heads l / 4 and 8
// after it; of every eight columns the pair 2 (l % 4), as in mma.cuh.
template <class Config>
class HeadTile {
 public:
  __device__ HeadTile(const DecodeParams& params, const DecodeItem& item) : params_(params) {
    const int64_t head = int64_t{item.row} * params.num_q_heads + item.first_head + lane() / 4;
    const __nv_bfloat16* q = params.q + head * kDim + lane() % 4 * 2;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // rows 0, 8, 0, 8; columns 0, 0, 8, 8
        const bool exists = lane() / 4 + i % 2 * 8 < item.num_heads;
        const __nv_bfloat16* from = q + i % 2 * 8 * kDim + 16 * k + i / 2 * 8;
        q_[k][i] = exists ? *reinterpret_cast<const uint32_t*>(from) : 0;
      }
    }
  }

  // `slice` is in shared memory: K, then V. Its first `num_tokens` tokens count, possibly none.
  __device__ void attend(uint32_t slice, int num_tokens) {
    float scores[2][4] = {};
    const uint32_t k_lane = b_lane_address<kDim>(slice, 0, lane());
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t keys[4];
      ldmatrix_x4(keys, k_lane ^ (32 * k));
      mma(scores[0], q_[k], keys[0], keys[1]);
      mma(scores[1], q_[k], keys[2], keys[3]);
    }
    weigh(scores, num_tokens);
    // Weights go into the product in two parts, 16 bits of them in all: the tensor cores have the
    // time, and the result is as exact as with weights in float32.
    uint32_t high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      split(scores[i / 2][i % 2 * 2], scores[i / 2][i % 2 * 2 + 1], high[i], low[i]);
    }
    const uint32_t v_lane = a_lane_address<kDim>(slice + Config::kSliceBytes, 0, lane());
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t values[4];
      ldmatrix_x4_transposed(values, v_lane ^ (32 * k));
      mma(out_[2 * k], high, values[0], values[1]);
      mma(out_[2 * k + 1], high, values[2], values[3]);
      mma(out_[2 * k], low, values[0], values[1]);
      mma(out_[2 * k + 1], low, values[2], values[3]);
    }
  }

  // Sums up the warps and writes the item's result. All threads of the block.
  __device__ void finish(const DecodeItem& item, typename Config::SharedStorage& shared) {
    const int warp = threadIdx.x / kWarpSize;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = warp_reduce<4>(sums_[r], Sum());
      if (lane() % 4 == 0) {
        shared.tops[warp][lane() / 4 + 8 * r] = tops_[r];
        shared.sums[warp][lane() / 4 + 8 * r] = sum;
      }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (r * Config::kMergeRows >= item.num_heads) break;
      const int row = lane() / 4;
      const float share = fast_exp2(tops_[r] - top_of(shared, row + 8 * r));
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        float* to = &shared.merged[warp][row][merged_column(row, 8 * i + lane() % 4 * 2)];
        *reinterpret_cast<float2*>(to) = float2{out_[i][2 * r] * share, out_[i][2 * r + 1] * share};
      }
      __syncthreads();
      write(item, shared, r * Config::kMergeRows);
      __syncthreads();
    }
  }

 private:
  static constexpr int kDim = Config::kHeadDim;

  __device__ static int lane() { return threadIdx.x % kWarpSize; }

  // One step of the online softmax: scores become exp2(score - top).
  __device__ void weigh(float (&scores)[2][4], int num_tokens) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const bool counts = i / 4 * 8 + lane() % 4 * 2 + i % 2 < num_tokens;
      float& score = scores[i / 4][i % 4];
      score = counts ? score * params_.scale_log2 : -INFINITY;
    }
    float decay[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = fmaxf(fmaxf(scores[0][2 * r], scores[0][2 * r + 1]),
                        fmaxf(scores[1][2 * r], scores[1][2 * r + 1]));
      top = fmaxf(tops_[r], warp_reduce<4>(top, Max()));
      const float base = top == -INFINITY ? 0.f : top;  // no token as yet
      decay[r] = fast_exp2(tops_[r] - base);
      tops_[r] = top;
      float sum = 0.f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& score = scores[i / 2][2 * r + i % 2];
        score = fast_exp2(score - base);
        sum += score;
      }
      sums_[r] = sums_[r] * decay[r] + sum;
    }
    if (__all_sync(kFullWarp, decay[0] == 1.f && decay[1] == 1.f)) return;  // as a rule
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) out_[i][j] *= decay[j / 2];
    }
  }

  // Two neighbours, each as the sum of two bf16.
  __device__ static void split(float left, float right, uint32_t& high, uint32_t& low) {
    const __nv_bfloat162 rounded = __floats2bfloat162_rn(left, right);
    const __nv_bfloat162 rest =
        __floats2bfloat162_rn(left - __low2float(rounded), right - __high2float(rounded));
    high = reinterpret_cast<const uint32_t&>(rounded);
    low = reinterpret_cast<const uint32_t&>(rest);
  }

  // Exchanges groups of eight columns so that the rows of a store fall into different banks.
  __device__ static int merged_column(int row, int column) { return column ^ ((row & 3) << 3); }

  __device__ static float top_of(const typename Config::SharedStorage& shared, int head) {
    float top = shared.tops[0][head];
#pragma unroll
    for (int warp = 1; warp < Config::kNumWarps; ++warp) top = fmaxf(top, shared.tops[warp][head]);
    return top;
  }

  // The heads [first, first + kMergeRows) of the tile, four columns a thread.
  __device__ void write(const DecodeItem& item, const typename Config::SharedStorage& shared,
                        int first) const {
    constexpr int kRowThreads = kDim / 4;
    const int column = threadIdx.x % kRowThreads * 4;
    for (int row = threadIdx.x / kRowThreads; row < min(Config::kMergeRows, item.num_heads - first);
         row += Config::kNumThreads / kRowThreads) {
      const int head = first + row;
      const float top = top_of(shared, head);
      float values[4] = {};
      float sum = 0.f;
#pragma unroll
      for (int warp = 0; warp < Config::kNumWarps; ++warp) {
        sum += shared.sums[warp][head] * fast_exp2(shared.tops[warp][head] - top);
        float part[4];
        load(part, &shared.merged[warp][row][merged_column(row, column)]);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] += part[i];
      }
      const int64_t row_head = int64_t{item.row} * params_.num_q_heads + item.first_head + head;
      if (item.num_chunks == 1) {
        const float share = 1.f / sum;
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] *= share;
        store(params_.out + row_head * kDim + column, values);
      } else {
        const int64_t slot = row_head * kMaxChunks + item.chunk;
        store(params_.partials + slot * kDim + column, values);
        if (column == 0) params_.states[slot] = float2{top, sum};
      }
    }
  }

  const DecodeParams& params_;
  uint32_t q_[kDim / 16][4];
  float out_[kDim / 8][4] = {};  // values summed with weights exp2(logit - top)
  float tops_[2] = {-INFINITY, -INFINITY};
  float sums_[2] = {};  // over the lane's own columns
};

template <class Config>
__global__ void __launch_bounds__(Config::kNumThreads, Config::kBlocksPerSm)
    paged_decode_kernel(const __grid_constant__ DecodeParams params) {
  extern __shared__ __align__(256) uint8_t raw[];
  auto& shared = *reinterpret_cast<typename Config::SharedStorage*>(raw);
  const int warp = threadIdx.x / kWarpSize;
  const uint32_t ring = shared_address(shared.rings[warp]);

  SliceLoader<Config> loader(params, ring);
  for (int i = 0; i < Config::kNumStages - 1; ++i) loader.issue();
  DecodeItems items(params);
  DecodeItem item;
  int stage = 0;
  for (int32_t idx = blockIdx.x; items.seek(idx, item); idx += gridDim.x) {
    HeadTile<Config> tile(params, item);
    for (int32_t position = item.begin; position < item.end; position += Config::kStep) {
      cp_async_wait<Config::kNumStages - 2>();
      __syncwarp();  // the slice is complete, and the one before it is no longer read
      loader.issue();
      tile.attend(ring + stage * (2 * Config::kSliceBytes),
                  item.end - position - warp * Config::kSlice);
      stage = stage + 1 == Config::kNumStages ? 0 : stage + 1;
    }
    tile.finish(item, shared);
  }
}

template <class Config>
cudaError_t allow_shared_memory() {
  const auto kernel = paged_decode_kernel<Config>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(sizeof(typename Config::SharedStorage)));
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared);  // both blocks at once
}

template <int kHeadDim>
void launch_paged_decode(const DecodeParams& params, int num_sms, cudaStream_t stream) {
  using Config = PagedDecodeConfig<kHeadDim>;
  constexpr size_t kSharedBytes = sizeof(typename Config::SharedStorage);
  check_cuda(allow_shared_memory<Config>(), "shared memory of the decode kernel");
  const int64_t items_max =
      int64_t{params.num_rows} * params.num_kv_heads * tiles_per_kv_head(params) * kMaxChunks;
  const int64_t num_blocks = std::min<int64_t>(items_max, num_sms * Config::kBlocksPerSm);
  paged_decode_kernel<Config>
      <<<static_cast<unsigned>(num_blocks), Config::kNumThreads, kSharedBytes, stream>>>(params);
  check_launch("decode_attention");
}

}  // namespace pbserve::kernels::cuda
