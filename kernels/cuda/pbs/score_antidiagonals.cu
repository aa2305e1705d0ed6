// Scorer antidiagonal: the product of query groups, their queries in reverse, with groups of
// permuted keys; per key block the mass of its groups' scores.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/pbs/group_product.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kCopyRows = GroupTile::kThreads / 8;  // 8 threads copy a row of 64 elements

// A query group of the batch, by its row among those of the KV head.
struct QueryGroup {
  int block;
  int head;
  int first_token;  // in the block
  int num_tokens;   // that exist; 0 past the end
};

template <int kStride>
__device__ __forceinline__ QueryGroup query_group(const SelectParams& p, int row, int kv_head) {
  constexpr int kGroups = kPbsBlock / kStride;
  const int block = row / (kGroups * p.group);
  QueryGroup group{.block = block,
                   .head = kv_head * p.group + row / kGroups % p.group,
                   .first_token = row % kGroups * kStride,
                   .num_tokens = 0};
  if (block < p.num_blocks) {
    group.num_tokens = min(max(num_rows_of(p, block) - group.first_token, 0), kStride);
  }
  return group;
}

// Copies the stages of a tile: what this thread needs to find its rows.
template <int kDim, int kStride>
struct Copier {
  static constexpr int kQueryRows = GroupTile::kM / kCopyRows;
  static constexpr int kKeyRows = GroupTile::kN / kCopyRows;
  static constexpr int kGroupSize = kStride * kDim;

  const __nv_bfloat16* queries;  // of the tile's first query block
  const __nv_bfloat16* keys;     // this thread's first key group
  int offsets[kQueryRows];       // from `queries` to the last token of the thread's query groups
  int num_tokens[kQueryRows];
  int token_size;      // Hq D
  int num_key_groups;  // from the thread's first on

  __device__ __forceinline__ Copier(const SelectParams& p, int first_row, int first_key_group,
                                    int num_candidates, int kv_head) {
    const int row = threadIdx.x / 8;
    const int element = threadIdx.x % 8 * 8;
    token_size = p.num_q_heads * kDim;
    const int first_block = query_group<kStride>(p, first_row, kv_head).block;
    queries = p.q + int64_t{p.first_block + first_block} * kPbsBlock * token_size;
#pragma unroll
    for (int i = 0; i < kQueryRows; ++i) {
      const auto group = query_group<kStride>(p, first_row + row + i * kCopyRows, kv_head);
      const int last = (group.block - first_block) * kPbsBlock + group.first_token + kStride - 1;
      offsets[i] = last * token_size + group.head * kDim + element;
      num_tokens[i] = group.num_tokens;
    }
    const int key_group = first_key_group + row;
    num_key_groups = num_candidates * (kPbsBlock / kStride) - key_group;
    keys = p.k + (int64_t{kv_head} * p.plan_len + int64_t{key_group} * kStride) * kDim + element;
  }

  // Elements [64 idx, 64 idx + 64) of the groups: half of a token at D = 128. Token r of a key
  // group meets token kStride - 1 - r of a query group; where that does not exist, zeros.
  __device__ __forceinline__ void operator()(int idx, uint32_t stage) const {
    const int r = idx * GroupTile::kK / kDim;
    const int part = idx * GroupTile::kK % kDim;
    const int row = threadIdx.x / 8;
    const uint32_t to = stage + tile_offset<GroupTile::kK>(row, threadIdx.x % 8);
    const int from = part - r * token_size;
#pragma unroll
    for (int i = 0; i < kQueryRows; ++i) {
      const bool exists = kStride - 1 - r < num_tokens[i];
      cp_async_16(to + i * kCopyRows * GroupTile::kK * 2,
                  queries + (exists ? offsets[i] + from : 0), exists);
    }
#pragma unroll
    for (int i = 0; i < kKeyRows; ++i) {
      const bool exists = i * kCopyRows < num_key_groups;
      cp_async_16(to + GroupTile::kQueryBytes + i * kCopyRows * GroupTile::kK * 2,
                  exists ? keys + i * kCopyRows * kGroupSize + idx * GroupTile::kK : queries,
                  exists);
    }
  }
};

// The log mass of one row's scores in a key block of kFragments 8-column fragments, given to the
// four lanes that share the row.
template <int kFragments>
__device__ __forceinline__ float log_mass_of(const float (&products)[8][4], int first_fragment,
                                             int half, float scale_log2) {
  float scores[2 * kFragments];
#pragma unroll
  for (int i = 0; i < 2 * kFragments; ++i) {
    scores[i] = products[first_fragment + i / 2][2 * half + i % 2] * scale_log2;
  }
  float top = scores[0];
#pragma unroll
  for (int i = 1; i < 2 * kFragments; ++i) top = fmaxf(top, scores[i]);
  top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
  top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 2 * kFragments; ++i) sum += fast_exp2(scores[i] - top);
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  return top + fast_log2(sum);
}

// Writes the log masses of this warp's 64 rows and its key blocks: 8 of them at stride 16, two for
// each lane of four; 4 at stride 8.
template <int kStride>
__device__ __forceinline__ void write_log_masses(const SelectParams& p,
                                                 const GroupProducts& products, int first_row,
                                                 int first_key_block, int kv_head) {
  constexpr int kFragments = kPbsBlock / kStride / 8;  // of a key block
  constexpr int kBlocks = 8 / kFragments;
  constexpr int kOwn = kBlocks / 4;  // that a lane writes
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int num_rows = p.num_blocks * p.group * p.num_groups;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int row = first_row + warp / 4 * 64 + i * 8 + lane / 4;
    const int num_tokens = query_group<kStride>(p, row, kv_head).num_tokens;
    const float scale = p.scale_log2 / static_cast<float>(max(num_tokens, 1));
    float own[kOwn];
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      const float log_mass = log_mass_of<kFragments>(products[i / 2], j * kFragments, i % 2, scale);
      if (lane % 4 == j / kOwn) own[j % kOwn] = log_mass;
    }
    if (row >= num_rows) continue;
    float* to = p.log_masses + (int64_t{kv_head} * num_rows + row) * p.num_padded_candidates +
                first_key_block + warp % 4 * kBlocks + lane % 4 * kOwn;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) to[j] = own[j];
  }
}

// Block (row tile and key tile, KV head). Blocks that run together share key tiles: row tiles come
// first. Key tiles start at multiples of 256 groups whatever the batch.
template <int kDim, int kStride>
__global__ void __launch_bounds__(GroupTile::kThreads, 1)
    score_antidiagonals_kernel(const __grid_constant__ SelectParams p, int num_row_tiles) {
  extern __shared__ __align__(1024) uint8_t shared[];
  constexpr int kGroups = kPbsBlock / kStride;
  const int first_row = blockIdx.x % num_row_tiles * GroupTile::kM;
  const int first_key_group = blockIdx.x / num_row_tiles * GroupTile::kN;
  const int kv_head = blockIdx.y;
  const int last_row = min(first_row + GroupTile::kM, p.num_blocks * p.group * kGroups) - 1;
  const int num_candidates = num_candidates_of(p, last_row / (p.group * kGroups));
  if (first_key_group >= num_candidates * kGroups) return;

  GroupProducts products = {};
  const Copier<kDim, kStride> copy(p, first_row, first_key_group, num_candidates, kv_head);
  multiply_groups(products, shared_address(shared), kStride * kDim / GroupTile::kK, copy);
  write_log_masses<kStride>(p, products, first_row, first_key_group / kGroups, kv_head);
}

template <int kDim, int kStride>
void score(const SelectParams& params, cudaStream_t stream) {
  const auto kernel = score_antidiagonals_kernel<kDim, kStride>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  GroupTile::kSharedBytes),
             "pbs_select: shared memory");
  const int num_rows = params.num_blocks * params.group * params.num_groups;
  const int num_row_tiles = (num_rows + GroupTile::kM - 1) / GroupTile::kM;
  const int num_key_groups = num_candidates_of(params, params.num_blocks - 1) * params.num_groups;
  const int num_key_tiles = (num_key_groups + GroupTile::kN - 1) / GroupTile::kN;
  const dim3 grid(num_row_tiles * num_key_tiles, params.num_kv_heads);
  kernel<<<grid, GroupTile::kThreads, GroupTile::kSharedBytes, stream>>>(params, num_row_tiles);
  check_launch("pbs_select");
}

template <int kDim>
void score(const SelectParams& params, cudaStream_t stream) {
  params.num_groups == kPbsBlock / 16 ? score<kDim, 16>(params, stream)
                                      : score<kDim, 8>(params, stream);
}

}  // namespace

void score_antidiagonals(const SelectParams& params, cudaStream_t stream) {
  params.head_dim == 64 ? score<64>(params, stream) : score<128>(params, stream);
}

}  // namespace pbserve::kernels::cuda
