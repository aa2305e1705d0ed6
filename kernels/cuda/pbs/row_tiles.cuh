// The product both passes of pbs_order run on: a warp keeps 32 rows in registers and meets tiles of
// 64 rows that stream through shared memory.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/device/cp_async.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/pbs/order_params.h"

namespace pbserve::kernels::cuda {

inline constexpr int kWarpRows = 32;  // rows a warp keeps
inline constexpr int kTileRows = 64;  // rows of a streamed tile
inline constexpr int kTileStages = 2;

// Copies rows to a tile; row_at(row) is where a row starts, null for a row of zeros.
template <int kDim, class RowAt>
__device__ __forceinline__ void copy_rows(uint32_t tile, int num_rows, const void* any_address,
                                          const RowAt& row_at) {
  constexpr int kChunks = kDim / 8;
#pragma unroll 1  // beside the 64 registers of the kept rows there is no room for more at once
  for (int idx = threadIdx.x; idx < num_rows * kChunks; idx += blockDim.x) {
    const int row = idx / kChunks;
    const int chunk = idx % kChunks;
    const __nv_bfloat16* from = row_at(row);
    const bool exists = from != nullptr;
    cp_async_16(tile + tile_offset<kDim>(row, chunk), exists ? from + chunk * 8 : any_address,
                exists);
  }
}

// Row of q, as [rows Hq, D], that the first proxy of a KV head's first query head is.
__device__ __forceinline__ int first_proxy_row(const OrderSpan& span, int kv_head,
                                               const OrderParams& p) {
  return span.first_proxy * p.num_q_heads + kv_head * p.group;
}

// Rows [first, first + num_rows) of the proxies of a KV head.
template <int kDim>
__device__ __forceinline__ void copy_proxies(uint32_t tile, int first, int num_rows, int proxy_row,
                                             const OrderParams& p) {
  copy_rows<kDim>(tile, num_rows, p.q, [&](int row) -> const __nv_bfloat16* {
    const int idx = first + row;
    if (idx >= p.num_rows) return nullptr;
    const int from = proxy_row + idx % kPbsBlock * p.num_q_heads + idx / kPbsBlock;
    return p.q + int64_t{from} * kDim;
  });
}

// Keys [first, first + num_rows) of the job: within one page, or whole pages.
template <int kDim>
__device__ __forceinline__ void copy_keys(uint32_t tile, int first, int num_rows, int kv_head,
                                          const OrderParams& p) {
  for (int begin = 0; begin < num_rows; begin += kPbsBlock) {
    const __nv_bfloat16* keys = p.own_k + int64_t{own_row(p, first + begin, kv_head)} * kDim;
    copy_rows<kDim>(tile + begin * kDim * 2, min(num_rows - begin, kPbsBlock), keys,
                    [&](int row) { return keys + row * kDim; });
  }
}

// 32 rows of a tile as `a` fragments.
template <int kDim>
struct WarpRows {
  uint32_t a[kDim / 16][2][4];

  __device__ __forceinline__ void load(uint32_t tile, int first_row, int lane) {
    const uint32_t address = a_lane_address<kDim>(tile, first_row, lane);
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      ldmatrix_x4(a[k][0], address ^ (32 * k));
      ldmatrix_x4(a[k][1], (address ^ (32 * k)) + 16 * kDim * 2);
    }
  }
};

// products[m][n] = rows [16 m, 16 m + 16) times rows [8 n, 8 n + 8) of a tile, counted from the
// lane address on.
template <int kDim>
__device__ __forceinline__ void multiply(float (&products)[2][4][4], const WarpRows<kDim>& rows,
                                         uint32_t b_address) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) products[m][n][i] = 0.f;
    }
  }
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t b[2][4];
    ldmatrix_x4(b[0], b_address ^ (32 * k));
    ldmatrix_x4(b[1], (b_address ^ (32 * k)) + 16 * kDim * 2);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma(products[m][n], rows.a[k][m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
}

// Runs use(idx, tile) for tiles [0, num_tiles) while load(idx, tile) brings the next one. The first
// is being copied when it is called. All threads of the block call it.
template <int kDim, class Load, class Use>
__device__ __forceinline__ void stream_tiles(uint32_t stages, int num_tiles, const Load& load,
                                             const Use& use) {
  constexpr uint32_t kStageBytes = kTileRows * kDim * 2;
  for (int idx = 0; idx < num_tiles; ++idx) {
    cp_async_wait<0>();
    __syncthreads();  // the tile is there, and the other stage has been used
    if (idx + 1 < num_tiles) load(idx + 1, stages + (idx + 1) % kTileStages * kStageBytes);
    cp_async_commit();
    use(idx, stages + idx % kTileStages * kStageBytes);
  }
}

}  // namespace pbserve::kernels::cuda
