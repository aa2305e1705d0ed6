// The work of a decode step as a list of items: one chunk of one row's context for up to 16 query
// heads of one key head. The list is not stored: each warp walks it through the context lengths, so
// a launch depends on the number of rows only, and any number of rows will do.
#pragma once

#include "kernels/cuda/attention/decode_params.h"
#include "kernels/cuda/device/reduce.cuh"

namespace pbserve::kernels::cuda {

inline constexpr int kHeadTile = 16;  // rows of one product of the tensor cores

// Tiles of query heads that a key head needs.
__host__ __device__ inline int32_t tiles_per_kv_head(const DecodeParams& params) {
  return (params.num_q_heads / params.num_kv_heads + kHeadTile - 1) / kHeadTile;
}

struct DecodeItem {
  int32_t row;
  int32_t kv_head;
  int32_t first_head;  // query heads [first_head, first_head + num_heads)
  int32_t num_heads;   // at most kHeadTile
  int32_t chunk;
  int32_t num_chunks;
  int32_t begin;  // positions [begin, end); begin on a page boundary
  int32_t end;
};

// Items are ordered by row, chunk and head tile: those that run together read neighbouring memory,
// as a page holds all key heads. All lanes of a warp call it together and get the same.
class DecodeItems {
 public:
  __device__ explicit DecodeItems(const DecodeParams& params)
      : params_(params), head_tiles_(params.num_kv_heads * tiles_per_kv_head(params)) {}

  // False past the last item. REQUIRES: indexes grow from call to call.
  __device__ bool seek(int32_t idx, DecodeItem& item) {
    while (idx >= last_end_) {
      first_row_ += kWarpSize;
      if (first_row_ >= params_.num_rows) return false;
      load_rows();
    }
    const int lane = __ffs(static_cast<int>(__ballot_sync(kFullWarp, idx < lane_end_))) - 1;
    const int32_t context_len = __shfl_sync(kFullWarp, lane_context_len_, lane);
    const int32_t row_end = __shfl_sync(kFullWarp, lane_end_, lane);
    const ContextSplit split = split_context(context_len);
    idx -= row_end - split.num_chunks * head_tiles_;  // within the row
    const int32_t tile = idx % head_tiles_;
    const int32_t tiles_per_head = tiles_per_kv_head(params_);
    const int32_t group = params_.num_q_heads / params_.num_kv_heads;
    const int32_t head_in_group = tile % tiles_per_head * kHeadTile;
    item.row = first_row_ + lane;
    item.kv_head = tile / tiles_per_head;
    item.first_head = item.kv_head * group + head_in_group;
    item.num_heads = min(kHeadTile, group - head_in_group);
    item.chunk = idx / head_tiles_;
    item.num_chunks = split.num_chunks;
    item.begin = item.chunk * split.chunk_len;
    item.end = min(item.begin + split.chunk_len, context_len);
    return true;
  }

 private:
  __device__ void load_rows() {
    const int32_t row = first_row_ + static_cast<int32_t>(threadIdx.x % kWarpSize);
    lane_context_len_ = row < params_.num_rows ? params_.context_lens[row] : 0;
    const int32_t num_items = split_context(lane_context_len_).num_chunks * head_tiles_;
    lane_end_ = last_end_ + warp_sum_before(num_items) + num_items;
    last_end_ = __shfl_sync(kFullWarp, lane_end_, kWarpSize - 1);
  }

  const DecodeParams& params_;
  int32_t head_tiles_;              // of a chunk
  int32_t first_row_ = -kWarpSize;  // of the 32 that the lanes hold
  int32_t last_end_ = 0;            // items of all rows up to the last lane's
  int32_t lane_end_ = 0;            // items of all rows up to this lane's
  int32_t lane_context_len_ = 0;
};

}  // namespace pbserve::kernels::cuda
