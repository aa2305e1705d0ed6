// Pass one of pbs_order: the softmax of every proxy query over all keys of its span's complete
// segments, as the logarithm of its sum. Keys are cut into chunks whose length depends on the
// span's alone; the chunks' partial results are combined in the order of the chunks.

#include "kernels/core/bits.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/order_params.h"
#include "kernels/cuda/pbs/row_tiles.cuh"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlockRows = kThreads / 32 * kWarpRows;
constexpr int kCombineThreads = 128;

template <int kDim>
constexpr int kSharedBytes = (kBlockRows + kTileStages * kTileRows) * kDim * 2;

// Of the 32 rows of a warp a thread sees 4: l / 4, 8, 16 and 24 further. Each keeps a state of the
// columns that this thread holds; lanes meet at the end only.
__device__ __forceinline__ void step(SoftmaxState (&states)[2][2], const float (&products)[2][4][4],
                                     float scale_log2) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      SoftmaxState& state = states[m][half];
      float top = products[m][0][2 * half];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        top = fmaxf(top, fmaxf(products[m][n][2 * half], products[m][n][2 * half + 1]));
      }
      top = fmaxf(state.top, top * scale_log2);
      float sum = state.sum * fast_exp2(state.top - top);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        sum += fast_exp2(fmaf(products[m][n][2 * half], scale_log2, -top));
        sum += fast_exp2(fmaf(products[m][n][2 * half + 1], scale_log2, -top));
      }
      state = {top, sum};
    }
  }
}

// Block (chunk, rows, span and KV head): the partial softmax of 256 rows over a chunk of the keys.
template <int kDim>
__global__ void __launch_bounds__(kThreads, 2)
    proxy_softmax_kernel(const __grid_constant__ OrderParams p) {
  extern __shared__ __align__(256) uint8_t shared[];
  const uint32_t rows_tile = shared_address(shared);
  const uint32_t stages = rows_tile + kBlockRows * kDim * 2;
  const int lane = threadIdx.x % 32;
  const int warp_row = threadIdx.x / 32 * kWarpRows;
  const int first_row = blockIdx.y * kBlockRows;
  const int kv_head = blockIdx.z % p.num_kv_heads;
  const OrderSpan span = order_span(p, p.first_span + blockIdx.z / p.num_kv_heads);
  const int num_keys = min(span.num_keys - static_cast<int>(blockIdx.x) * p.chunk_len, p.chunk_len);
  if (num_keys <= 0) return;
  const int key_begin = span.begin + blockIdx.x * p.chunk_len;
  const bool has_rows = first_row + warp_row < p.num_rows;

  copy_proxies<kDim>(rows_tile, first_row, kBlockRows, first_proxy_row(span, kv_head, p), p);
  copy_keys<kDim>(stages, key_begin, kTileRows, kv_head, p);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  WarpRows<kDim> rows;
  rows.load(rows_tile, warp_row, lane);

  SoftmaxState states[2][2];
#pragma unroll
  for (int i = 0; i < 4; ++i) states[i / 2][i % 2] = SoftmaxState::none();
  stream_tiles<kDim>(
      stages, num_keys / kTileRows,
      [&](int idx, uint32_t tile) {
        copy_keys<kDim>(tile, key_begin + idx * kTileRows, kTileRows, kv_head, p);
      },
      [&](int, uint32_t tile) {
        if (!has_rows) return;
#pragma unroll 1
        for (int column = 0; column < kTileRows; column += 32) {
          float products[2][4][4];
          multiply<kDim>(products, rows, b_lane_address<kDim>(tile, column, lane));
          step(states, products, p.scale_log2);
        }
      });

#pragma unroll
  for (int i = 0; i < 4; ++i) {
    SoftmaxState state = states[i / 2][i % 2];
    for (int distance = 1; distance < 4; distance *= 2) {
      state = merged(state, {__shfl_xor_sync(0xffffffffu, state.top, distance),
                             __shfl_xor_sync(0xffffffffu, state.sum, distance)});
    }
    const int row = first_row + warp_row + i * 8 + lane / 4;
    if (lane % 4 == 0 && row < p.num_rows) {
      const int64_t chunk = int64_t{blockIdx.z} * p.num_chunks + blockIdx.x;
      p.partials[chunk * p.num_rows + row] = {state.top, state.sum};
    }
  }
}

// A thread per row of each span and KV head.
__global__ void __launch_bounds__(kCombineThreads)
    combine_chunks_kernel(const __grid_constant__ OrderParams p) {
  const int row = blockIdx.x * kCombineThreads + threadIdx.x;
  const int num_keys = order_span(p, p.first_span + blockIdx.y / p.num_kv_heads).num_keys;
  if (row >= p.num_rows || num_keys == 0) return;
  const float2* partials = p.partials + int64_t{blockIdx.y} * p.num_chunks * p.num_rows + row;
  SoftmaxState state = SoftmaxState::none();
#pragma unroll 8
  for (int chunk = 0; chunk * p.chunk_len < num_keys; ++chunk) {
    const float2 partial = partials[int64_t{chunk} * p.num_rows];
    state = merged(state, {partial.x, partial.y});
  }
  p.log_masses[int64_t{blockIdx.y} * p.num_rows + row] =
      state.top + log2f(state.sum * static_cast<float>(p.num_rows));
}

}  // namespace

template <int kDim>
void proxy_softmax(const OrderParams& params, cudaStream_t stream) {
  const auto kernel = proxy_softmax_kernel<kDim>;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kDim>),
      "pbs_order: shared memory");
  const unsigned heads = params.num_spans * params.num_kv_heads;
  const dim3 grid(params.num_chunks, ceil_div(params.num_rows, kBlockRows), heads);
  kernel<<<grid, kThreads, kSharedBytes<kDim>, stream>>>(params);
  check_launch("pbs_order");
  const dim3 combine_grid(ceil_div(params.num_rows, kCombineThreads), heads);
  combine_chunks_kernel<<<combine_grid, kCombineThreads, 0, stream>>>(params);
  check_launch("pbs_order");
}

template void proxy_softmax<64>(const OrderParams&, cudaStream_t);
template void proxy_softmax<128>(const OrderParams&, cudaStream_t);

}  // namespace pbserve::kernels::cuda
