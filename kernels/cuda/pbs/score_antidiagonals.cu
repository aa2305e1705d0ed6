// Scorer antidiagonal: the product of query groups, their queries in reverse, with groups of keys
// as they lie in the pages; per page the mass of its groups' scores. Persistent clusters of blocks
// work off the tiles of the product: while consumers reduce one, the copies of the next arrive.

#include <algorithm>
#include <numeric>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/aligned_shared.cuh"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/device/tma.cuh"
#include "kernels/cuda/pbs/group_product.cuh"
#include "kernels/cuda/pbs/scratch.h"
#include "kernels/cuda/pbs/select_params.h"
#include "kernels/cuda/tensor_map.h"

namespace pbserve::kernels::cuda {
namespace {

struct AntidiagonalParams {
  CUtensorMap q_map;  // make_group_map of q; a box has box_heads heads of one query block
  CUtensorMap k_map;  // pages as rows [num_pages Hkv P / stride, stride D], boxes of a page's rows
  SelectParams select;
  int32_t box_heads;      // divides G and the (query block, head) pairs of a tile
  int32_t num_missing;    // TokenGroups::num_missing of q
  int32_t num_row_tiles;  // of a cluster
  int32_t num_key_tiles;
  int32_t num_tiles;
};

// The part of a cluster's tile that this block works on.
struct GroupPlace {
  int kv_head;
  int first_row;  // among the query groups of the KV head
  int first_key_group;
};

// Calls work(place) for the tiles of this block's cluster that have candidates. Clusters that run
// together share key groups: row tiles come first. Key tiles start at multiples of 256 groups
// whatever the batch.
template <int kStride, class Work>
__device__ __forceinline__ void for_each_tile(const AntidiagonalParams& p, const Work& work) {
  constexpr int kGroups = kPbsBlock / kStride;
  constexpr int kClusterSize = GroupTile::kClusterSize;
  const int rank = static_cast<int>(blockIdx.x) % kClusterSize;
  const int num_clusters = static_cast<int>(gridDim.x) / kClusterSize;
  const int num_rows = p.select.num_blocks * p.select.group * kGroups;
#pragma unroll 1
  for (int tile = static_cast<int>(blockIdx.x) / kClusterSize; tile < p.num_tiles;
       tile += num_clusters) {
    const int first_row = tile % p.num_row_tiles * GroupTile::kClusterM;
    const int key_tile = tile / p.num_row_tiles;  // of all KV heads
    const GroupPlace place{.kv_head = key_tile / p.num_key_tiles,
                           .first_row = first_row + rank * GroupTile::kM,
                           .first_key_group = key_tile % p.num_key_tiles * GroupTile::kN};
    const int last_row = min(first_row + GroupTile::kClusterM, num_rows) - 1;
    const int num_candidates = num_candidates_of(p.select, last_row / (p.select.group * kGroups));
    if (place.first_key_group < num_candidates * kGroups) work(place);
  }
}

// This block's share of a stage's key groups, for all blocks of the cluster: page by page. Behind
// the last candidate stands its page again.
template <int kStride>
__device__ __forceinline__ void load_keys(const AntidiagonalParams& p, GroupShared& shared,
                                          const GroupPlace& place, int stage, int element) {
  constexpr int kGroups = kPbsBlock / kStride;
  constexpr uint16_t kAllRanks = (1 << GroupTile::kClusterSize) - 1;
  const int rank = static_cast<int>(blockIdx.x) % GroupTile::kClusterSize;
  const int last_candidate = num_candidates_of(p.select, p.select.num_blocks - 1) - 1;
#pragma unroll 4
  for (int row = rank * GroupTile::kKeyBox; row < (rank + 1) * GroupTile::kKeyBox; row += kGroups) {
    const int candidate = min((place.first_key_group + row) / kGroups, last_candidate);
    const int page = p.select.block_table[candidate];
    tma_load_multicast(shared.k[stage] + row * kPanelRowBytes, p.k_map, shared.full[stage], element,
                       (page * p.select.num_kv_heads + place.kv_head) * kGroups, kAllRanks);
  }
}

// Fills the stages of a tile: elements [64 i, 64 i + 64) of the groups, half of a token at D = 128.
// Token r of a key group meets token kStride - 1 - r of a query group; where that does not exist,
// zeros. Rows past the batch and key groups past the candidates may be anything: their products
// stand alone and nobody reads them.
template <int kDim, int kStride>
__device__ __forceinline__ void load_groups(const AntidiagonalParams& p, GroupShared& shared,
                                            GroupRing& ring, const GroupPlace& place) {
  constexpr int kGroups = kPbsBlock / kStride;
  constexpr int kK = GroupTile::kK;
  const int first_head = place.first_row / kGroups % p.select.group;
  const int first_block = p.select.first_block + place.first_row / (kGroups * p.select.group);
#pragma unroll 1
  for (int i = 0; i < kStride * kDim / kK; ++i, ring.advance()) {
    const int stage = ring.stage();
    Mbarrier& full = shared.full[stage];
    shared.empty[stage].wait(ring.parity() ^ 1);
    full.arrive_and_expect(GroupTile::kQueryBytes + GroupTile::kKeyBytes);
    load_keys<kStride>(p, shared, place, stage, i * kK);
    const int token = kStride - 1 - i * kK / kDim + p.num_missing;
    int head = first_head;
    int group = first_block * kGroups + token / kStride;
#pragma unroll 1
    for (int row = 0; row < GroupTile::kM; row += p.box_heads * kGroups) {
      tma_load(shared.q[stage] + row * kPanelRowBytes, p.q_map, full, i * kK % kDim, group,
               place.kv_head * p.select.group + head, token % kStride);
      head += p.box_heads;
      if (head == p.select.group) {
        head = 0;
        group += kGroups;
      }
    }
  }
}

// Writes the log masses of a consumer's 64 rows. Four lanes share a row; each writes a quarter of
// the tile's key blocks.
template <int kStride>
__device__ __forceinline__ void write_log_masses(const SelectParams& p,
                                                 const GroupProducts& products,
                                                 const GroupPlace& place, int consumer) {
  constexpr int kGroups = kPbsBlock / kStride;
  constexpr int kBlocks = GroupTile::kN / kGroups;
  static_assert(kCandidateUnit % kBlocks == 0, "a whole tile is written, and a row ends with one");
  constexpr int kOwn = kBlocks / 4;       // of a lane
  constexpr int kProducts = kGroups / 4;  // of a lane in a key block: pairs, 8 columns apart
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32 % 4;
  const int num_rows = p.num_blocks * p.group * kGroups;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = place.first_row + consumer * 64 + warp * 16 + half * 8 + lane / 4;
    const int num_tokens = num_rows_of(p, row / (kGroups * p.group)) - row % kGroups * kStride;
    const float scale = p.scale_log2 / static_cast<float>(min(max(num_tokens, 1), kStride));
    float tops[kOwn];
    float sums[kOwn];
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      float scores[kProducts];
#pragma unroll
      for (int i = 0; i < kProducts; ++i) {
        scores[i] = products[j * kGroups / 2 + i / 2 * 4 + half * 2 + i % 2];
      }
      float top = scores[0];
#pragma unroll
      for (int i = 1; i < kProducts; ++i) top = fmaxf(top, scores[i]);
      top = warp_reduce<4>(top, Max()) * scale;
      float sum = 0.f;
#pragma unroll
      for (int i = 0; i < kProducts; ++i) sum += fast_exp2(fmaf(scores[i], scale, -top));
      sum = warp_reduce<4>(sum, Sum());
      if (lane % 4 == j / kOwn) {
        tops[j % kOwn] = top;
        sums[j % kOwn] = sum;
      }
    }
    if (row >= num_rows) continue;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) tops[j] += fast_log2(sums[j]);
    store(p.log_masses + (int64_t{place.kv_head} * num_rows + row) * p.num_padded_candidates +
              place.first_key_group / kGroups + lane % 4 * kOwn,
          tops);
  }
}

template <int kDim, int kStride>
__global__ void __cluster_dims__(GroupTile::kClusterSize, 1, 1)
    __launch_bounds__(GroupTile::kThreads, 1)
        score_antidiagonals_kernel(const __grid_constant__ AntidiagonalParams p) {
  extern __shared__ uint8_t raw[];
  auto& shared = aligned_shared<GroupShared>(raw);
  if (threadIdx.x == 0) shared.init_barriers();
  __syncwarp();
  cluster_sync();
  GroupRing ring;
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(GroupTile::kProducerRegisters));
    if (threadIdx.x == 0) {
      for_each_tile<kStride>(
          p, [&](const GroupPlace& place) { load_groups<kDim, kStride>(p, shared, ring, place); });
    }
    __syncwarp();
    cluster_sync();  // the other blocks write to this one's memory
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(GroupTile::kConsumerRegisters));
    const int consumer = warpgroup - 1;
    for_each_tile<kStride>(p, [&](const GroupPlace& place) {
      GroupProducts products;
      multiply_groups(products, shared, ring, consumer, kStride * kDim / GroupTile::kK);
      write_log_masses<kStride>(p.select, products, place, consumer);
    });
    __syncwarp();
    cluster_sync();
  }
}

template <int kDim, int kStride>
AntidiagonalParams params_of(const SelectParams& select) {
  constexpr int kGroups = kPbsBlock / kStride;
  const int num_rows = select.num_blocks * select.group * kGroups;
  const int num_key_groups = num_candidates_of(select, select.num_blocks - 1) * kGroups;
  AntidiagonalParams p{};
  p.select = select;
  p.box_heads = std::gcd(select.group, GroupTile::kM / kGroups);
  const TokenGroups queries{.data = select.q,
                            .num_tokens = select.num_rows,
                            .num_heads = select.num_q_heads,
                            .head_dim = kDim,
                            .stride = kStride,
                            .box_heads = p.box_heads,
                            .box_groups = kGroups};
  p.q_map = make_group_map(queries);
  p.num_missing = queries.num_missing();
  p.k_map = make_row_map(select.k, select.num_pages * select.num_kv_heads * kGroups, kStride * kDim,
                         kGroups);
  p.num_row_tiles = ceil_div(num_rows, GroupTile::kClusterM);
  p.num_key_tiles = ceil_div(num_key_groups, GroupTile::kN);
  p.num_tiles = p.num_row_tiles * p.num_key_tiles * select.num_kv_heads;
  return p;
}

template <int kDim, int kStride>
void score(const SelectParams& select, int num_sms, cudaStream_t stream) {
  constexpr int kSharedBytes = sizeof(GroupShared) + 1024;  // to align it by hand
  const auto kernel = score_antidiagonals_kernel<kDim, kStride>;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
      "pbs_select: shared memory");
  const auto params = params_of<kDim, kStride>(select);
  const int num_clusters = std::min(params.num_tiles, num_sms / GroupTile::kClusterSize);
  const int grid = num_clusters * GroupTile::kClusterSize;
  kernel<<<grid, GroupTile::kThreads, kSharedBytes, stream>>>(params);
  check_launch("pbs_select");
}

template <int kDim>
void score(const SelectParams& select, int num_sms, cudaStream_t stream) {
  select.num_groups == kPbsBlock / 16 ? score<kDim, 16>(select, num_sms, stream)
                                      : score<kDim, 8>(select, num_sms, stream);
}

}  // namespace

void score_antidiagonals(const SelectParams& params, int num_sms, cudaStream_t stream) {
  params.head_dim == 64 ? score<64>(params, num_sms, stream) : score<128>(params, num_sms, stream);
}

}  // namespace pbserve::kernels::cuda
