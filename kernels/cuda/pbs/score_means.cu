// Scorer mean: pooled queries times mean keys in float32.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kPoolThreads = 64;

// A thread pools 8 neighbouring elements of a query block's rows, in the order of the rows.
__global__ void __launch_bounds__(kPoolThreads)
    pool_queries_kernel(const __grid_constant__ SelectParams p) {
  constexpr int kVector = 8;
  const int width = p.num_q_heads * p.head_dim;
  const int element = (blockIdx.x * kPoolThreads + threadIdx.x) * kVector;
  const int block = blockIdx.y;
  if (element >= width) return;
  const int num_rows = num_rows_of(p, block);
  const int64_t first_row = int64_t{p.first_block + block} * kPbsBlock;
  const __nv_bfloat16* from = p.q + first_row * width + element;
  float sums[kVector] = {};
#pragma unroll 8
  for (int row = 0; row < num_rows; ++row) {
    float values[kVector];
    load(values, from + int64_t{row} * width);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sums[i] += values[i];
  }
  const float share = 1.f / static_cast<float>(num_rows);
#pragma unroll
  for (int i = 0; i < kVector; ++i) sums[i] *= share;
  float* to = p.q_pooled + int64_t{block} * width + element;
  store(to, reinterpret_cast<const float(&)[4]>(sums[0]));
  store(to + 4, reinterpret_cast<const float(&)[4]>(sums[4]));
}

constexpr int kTile = 64;  // rows and candidates of a block's product
constexpr int kThreads = 256;
constexpr int kPad = 4;  // floats after each row of a tile: rows 16 apart fall into other banks

template <int kDim>
struct Tiles {
  float q[kTile][kDim + kPad];
  float k[kTile][kDim + kPad];
};

// The pooled vector of a row: its query block and head.
__device__ __forceinline__ const float* pooled_query(const SelectParams& p, int row, int kv_head) {
  const int block = row / p.group;
  const int head = kv_head * p.group + row % p.group;
  return p.q_pooled + (int64_t{block} * p.num_q_heads + head) * p.head_dim;
}

// Tile rows [0, kTile) from row_at(row), null for zeros.
template <int kDim, class RowAt>
__device__ __forceinline__ void load_tile(float (&tile)[kTile][kDim + kPad], const RowAt& row_at) {
#pragma unroll 4
  for (int idx = threadIdx.x; idx < kTile * kDim / 4; idx += kThreads) {
    const int row = idx / (kDim / 4);
    const int column = idx % (kDim / 4) * 4;
    const auto* from = row_at(row);
    float values[4] = {};
    if (from != nullptr) load(values, from + column);
    store(&tile[row][column], values);
  }
}

// Block (candidates, rows, KV head): 64 rows times 64 candidates; thread (x, y) has the products of
// rows y + 16 i and candidates x + 16 j. Every product is one sum over d = 0, 1, 2, ...
template <int kDim>
__global__ void __launch_bounds__(kThreads)
    score_means_kernel(const __grid_constant__ SelectParams p) {
  extern __shared__ __align__(16) uint8_t shared[];
  Tiles<kDim>& tiles = *reinterpret_cast<Tiles<kDim>*>(shared);
  const int first_candidate = blockIdx.x * kTile;
  const int first_row = blockIdx.y * kTile;
  const int kv_head = blockIdx.z;
  const int num_rows = p.num_blocks * p.group;
  const int last_block = (min(first_row + kTile, num_rows) - 1) / p.group;
  const int num_candidates = num_candidates_of(p, last_block);
  if (first_candidate >= num_candidates) return;

  load_tile<kDim>(tiles.q, [&](int row) -> const float* {
    return first_row + row < num_rows ? pooled_query(p, first_row + row, kv_head) : nullptr;
  });
  const __nv_bfloat16* keys = p.means + int64_t{kv_head} * p.num_padded_candidates * kDim;
  load_tile<kDim>(tiles.k, [&](int row) -> const __nv_bfloat16* {
    const int candidate = first_candidate + row;
    return candidate < num_candidates ? keys + int64_t{candidate} * kDim : nullptr;
  });
  __syncthreads();

  const int x = threadIdx.x % 16;
  const int y = threadIdx.x / 16;
  float sums[4][4] = {};
#pragma unroll 4
  for (int d = 0; d < kDim; d += 4) {
    float4 q[4];
    float4 k[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      q[i] = *reinterpret_cast<const float4*>(&tiles.q[y + 16 * i][d]);
      k[i] = *reinterpret_cast<const float4*>(&tiles.k[x + 16 * i][d]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sums[i][j] = fmaf(q[i].x, k[j].x, sums[i][j]);
        sums[i][j] = fmaf(q[i].y, k[j].y, sums[i][j]);
        sums[i][j] = fmaf(q[i].z, k[j].z, sums[i][j]);
        sums[i][j] = fmaf(q[i].w, k[j].w, sums[i][j]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first_row + y + 16 * i;
    if (row >= num_rows) return;
    float* to = p.log_masses + (int64_t{kv_head} * num_rows + row) * p.num_padded_candidates;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int candidate = first_candidate + x + 16 * j;
      if (candidate < num_candidates) to[candidate] = sums[i][j] * p.scale_log2;
    }
  }
}

template <int kDim>
void score(const SelectParams& params, cudaStream_t stream) {
  const auto kernel = score_means_kernel<kDim>;
  constexpr int kSharedBytes = sizeof(Tiles<kDim>);
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
      "pbs_select: shared memory");
  const int num_candidates = num_candidates_of(params, params.num_blocks - 1);
  const int num_rows = params.num_blocks * params.group;
  const dim3 grid((num_candidates + kTile - 1) / kTile, (num_rows + kTile - 1) / kTile,
                  params.num_kv_heads);
  kernel<<<grid, kThreads, kSharedBytes, stream>>>(params);
  check_launch("pbs_select");
}

}  // namespace

void score_means(const SelectParams& params, cudaStream_t stream) {
  constexpr int kElements = kPoolThreads * 8;  // of a row, for a block of threads
  const int width = params.num_q_heads * params.head_dim;
  const dim3 grid((width + kElements - 1) / kElements, params.num_blocks);
  pool_queries_kernel<<<grid, kPoolThreads, 0, stream>>>(params);
  check_launch("pbs_select");
  params.head_dim == 64 ? score<64>(params, stream) : score<128>(params, stream);
}

}  // namespace pbserve::kernels::cuda
