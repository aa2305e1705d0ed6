// Pass two of pbs_order: a block owns one segment of one KV head. It keeps the segment's keys,
// streams the proxy queries past them and sums each key's probabilities; then it ranks the keys,
// writes the order, moves K and V to their places and pools the permuted key blocks.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/order_params.h"
#include "kernels/cuda/pbs/row_tiles.cuh"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kSegmentMax = 256;

// What follows the segment's keys and the stages in shared memory.
struct Tail {
  float log_masses[kTileStages][kTileRows];
  uint32_t scores[kSegmentMax];  // the bits of floats that are not negative: they compare alike
  uint8_t order[kSegmentMax];
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
                                           uint32_t stages, Tail& tail, int kv_head) {
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * kWarpRows;
  const float* log_masses = p.log_masses + int64_t{kv_head} * p.num_padded_rows;
  const auto load = [&](int idx, uint32_t tile) {
    copy_proxies<kDim>(tile, idx * kTileRows, kTileRows, kv_head, p);
    if (threadIdx.x < kTileRows / 4) {
      const uint32_t to = shared_address(tail.log_masses[idx % kTileStages]);
      cp_async_16(to + threadIdx.x * 16, log_masses + idx * kTileRows + threadIdx.x * 4);
    }
  };
  load(0, stages);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  WarpRows<kDim> keys;
  keys.load(keys_tile, warp_row, lane);

  float scores[2][2] = {};
  stream_tiles<kDim>(stages, p.num_padded_rows / kTileRows, load, [&](int idx, uint32_t tile) {
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

// How many keys come before this thread's: those of higher score, and of equal score at lower
// positions. That is the place in the sorted segment.
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

// K comes from shared memory, V from its pages; kDim / 8 vectors of each for a thread.
template <int kDim>
__device__ __forceinline__ void copy_permuted(const OrderParams& p, const uint8_t* keys,
                                              const uint8_t* order, int begin, int kv_head) {
  constexpr int kChunks = kDim / 8;
  constexpr int kBatch = 8;  // loads in flight
  const int64_t first = (int64_t{kv_head} * p.plan_len + begin) * kDim;
  uint4* to_k = reinterpret_cast<uint4*>(p.k + first);
  uint4* to_v = reinterpret_cast<uint4*>(p.v + first);
  for (int i = 0; i < kChunks; i += kBatch) {
    uint4 values[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int idx = threadIdx.x + (i + j) * blockDim.x;
      const int position = begin + order[idx / kChunks];
      const __nv_bfloat16* row = paged_row<kDim>(p.v_pages, position, kv_head, p);
      values[j] = __ldg(reinterpret_cast<const uint4*>(row) + idx % kChunks);
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int idx = threadIdx.x + (i + j) * blockDim.x;
      const uint32_t offset = tile_offset<kDim>(order[idx / kChunks], idx % kChunks);
      to_v[idx] = values[j];
      to_k[idx] = *reinterpret_cast<const uint4*>(keys + offset);
    }
  }
}

// Means of the permuted key blocks, summed in the order of the places.
template <int kDim>
__device__ __forceinline__ void pool(const OrderParams& p, const uint8_t* keys,
                                     const uint8_t* order, int begin, int kv_head) {
  float* pooled = p.k_pooled + (int64_t{kv_head} * p.plan_len + begin) / kPageLen * kDim;
  for (int idx = threadIdx.x; idx < p.segment / kPageLen * kDim; idx += blockDim.x) {
    const int d = idx % kDim;
    const uint8_t* places = order + idx / kDim * kPageLen;
    float sum = 0.f;
#pragma unroll 8
    for (int i = 0; i < kPageLen; ++i) {
      const uint32_t offset = tile_offset<kDim>(places[i], d / 8) + d % 8 * 2;
      sum += __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(keys + offset));
    }
    pooled[idx] = sum * (1.f / kPageLen);
  }
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
  const int begin = blockIdx.x * p.segment;
  const int kv_head = blockIdx.y;

  copy_keys<kDim>(keys_tile, begin, p.segment, kv_head, p);
  score_keys<kDim>(p, keys_tile, keys_tile + stages_offset, tail, kv_head);
  tail.order[rank_of(tail.scores, threadIdx.x, p.segment)] = static_cast<uint8_t>(threadIdx.x);
  __syncthreads();
  if (threadIdx.x < p.segment / 16) {
    uint4* to = reinterpret_cast<uint4*>(p.order + int64_t{kv_head} * p.plan_len + begin);
    to[threadIdx.x] = reinterpret_cast<const uint4*>(tail.order)[threadIdx.x];
  }
  copy_permuted<kDim>(p, shared, tail.order, begin, kv_head);
  pool<kDim>(p, shared, tail.order, begin, kv_head);
}

}  // namespace

template <int kDim>
void order_segments(const OrderParams& params, cudaStream_t stream) {
  const auto kernel = order_segments_kernel<kDim>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes<kDim>(kSegmentMax)),
             "pbs_order: shared memory");
  const dim3 grid(params.num_keys / params.segment, params.num_kv_heads);
  kernel<<<grid, params.segment, shared_bytes<kDim>(params.segment), stream>>>(params);
  check_launch("pbs_order");
}

template void order_segments<64>(const OrderParams&, cudaStream_t);
template void order_segments<128>(const OrderParams&, cudaStream_t);

}  // namespace pbserve::kernels::cuda
