// Pass two of pbs_order: a block owns one segment of one KV head. It keeps the segment's keys,
// streams the proxy queries past them and sums each key's probabilities; then it ranks the keys,
// writes K and V to their places in the pages and the pages' mean keys.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/order_place.cuh"
#include "kernels/cuda/pbs/row_tiles.cuh"

namespace pbserve::kernels::cuda {
namespace {

// What follows the segment's keys and the stages in shared memory.
struct Tail {
  float log_masses[kTileStages][kTileRows];
  uint32_t scores[kSegmentMax];
  uint8_t order[kSegmentMax];
};

template <int kDim>
struct RowTile {
  __device__ static uint32_t offset(int row, int chunk) { return tile_offset<kDim>(row, chunk); }
};

template <int kDim>
constexpr int shared_bytes(int segment) {
  return (segment + kTileStages * kTileRows) * kDim * 2 + static_cast<int>(sizeof(Tail));
}

// Each thread's scores of its 4 keys (as in order_softmax.cu), over its own columns.
__device__ __forceinline__ void add_probabilities(float (&scores)[2][2],
                                                  const float (&products)[2][4][4],
                                                  const float* log_masses, float scale_log2) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const float2 log_mass = *reinterpret_cast<const float2*>(log_masses + 8 * n);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[i / 2][i % 2] +=
          fast_exp2(fmaf(products[i / 2][n][i % 2 * 2], scale_log2, -log_mass.x)) +
          fast_exp2(fmaf(products[i / 2][n][i % 2 * 2 + 1], scale_log2, -log_mass.y));
    }
  }
}

// The scores of the segment's keys, in tail.scores. Every key's sum runs over the same columns in
// the same order, so equal keys have equal scores.
template <int kDim>
__device__ __forceinline__ void score_keys(const OrderParams& p, uint32_t keys_tile,
                                           uint32_t stages, Tail& tail, int span_idx, int kv_head) {
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * kWarpRows;
  const int proxy_row = first_proxy_row(order_span(p, span_idx), kv_head, p);
  const int first_mass = ((span_idx - p.first_span) * p.num_kv_heads + kv_head) * p.num_rows;
  const auto load = [&](int idx, uint32_t tile) {
    copy_proxies<kDim>(tile, idx * kTileRows, kTileRows, proxy_row, p);
    if (threadIdx.x < kTileRows / 4) {
      const uint32_t to = shared_address(tail.log_masses[idx % kTileStages]);
      cp_async_16(to + threadIdx.x * 16,
                  p.log_masses + first_mass + idx * kTileRows + threadIdx.x * 4);
    }
  };
  load(0, stages);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  WarpRows<kDim> keys;
  keys.load(keys_tile, warp_row, lane);

  float scores[2][2] = {};
  stream_tiles<kDim>(stages, p.num_rows / kTileRows, load, [&](int idx, uint32_t tile) {
#pragma unroll 1
    for (int column = 0; column < kTileRows; column += 32) {
      float products[2][4][4];
      multiply<kDim>(products, keys, b_lane_address<kDim>(tile, column, lane));
      const float* masses = tail.log_masses[idx % kTileStages] + column + lane % 4 * 2;
      add_probabilities(scores, products, masses, p.scale_log2);
    }
  });
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float score = scores[i / 2][i % 2];
    score += __shfl_xor_sync(0xffffffffu, score, 1);
    score += __shfl_xor_sync(0xffffffffu, score, 2);
    if (lane % 4 == 0) tail.scores[warp_row + i * 8 + lane / 4] = __float_as_uint(score);
  }
  __syncthreads();
}

__device__ __forceinline__ int span_at(const PbsJob& job, int row) {
  return job.span_len == 0 ? 0 : (job.begin + row) / job.span_len - job.begin / job.span_len;
}

// Block (segment, KV head) of as many threads as the segment has keys.
template <int kDim>
__global__ void __launch_bounds__(kSegmentMax, 2)
    order_segments_kernel(const __grid_constant__ OrderParams p) {
  extern __shared__ __align__(256) uint8_t shared[];
  const uint32_t keys_tile = shared_address(shared);
  const uint32_t stages_offset = p.segment * kDim * 2;
  Tail& tail =
      *reinterpret_cast<Tail*>(shared + stages_offset + kTileStages * kTileRows * kDim * 2);
  const int begin = order_span(p, p.first_span).begin + blockIdx.x * p.segment;
  const int kv_head = blockIdx.y;
  const int thread = threadIdx.x;

  copy_keys<kDim>(keys_tile, begin, p.segment, kv_head, p);
  score_keys<kDim>(p, keys_tile, keys_tile + stages_offset, tail, span_at(p.job, begin), kv_head);
  if (thread == 0 && p.sink_is_first && p.job.begin + begin == 0) tail.scores[0] = kScoreOfSink;
  __syncthreads();
  tail.order[rank_of(tail.scores, thread, p.segment)] = static_cast<uint8_t>(thread);
  __syncthreads();
  const KeyGroup group{.keys = shared,
                       .order = tail.order,
                       .begin = begin,
                       .num_keys = p.segment,
                       .kv_head = kv_head,
                       .thread = thread,
                       .num_threads = p.segment};
  const PageRows rows(p, group);
  copy_permuted<kDim, RowTile<kDim>>(p, group, rows);
  pool<kDim, RowTile<kDim>>(p, group, rows);
}

}  // namespace

template <int kDim>
void order_segments(const OrderParams& params, cudaStream_t stream) {
  const auto kernel = order_segments_kernel<kDim>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes<kDim>(kSegmentMax)),
             "pbs_order: shared memory");
  const OrderSpan last = order_span(params, params.first_span + params.num_spans - 1);
  const int num_keys = last.begin + last.num_keys - order_span(params, params.first_span).begin;
  if (num_keys == 0) return;
  const dim3 grid(num_keys / params.segment, params.num_kv_heads);
  kernel<<<grid, params.segment, shared_bytes<kDim>(params.segment), stream>>>(params);
  check_launch("pbs_order");
}

template void order_segments<64>(const OrderParams&, cudaStream_t);
template void order_segments<128>(const OrderParams&, cudaStream_t);

}  // namespace pbserve::kernels::cuda
