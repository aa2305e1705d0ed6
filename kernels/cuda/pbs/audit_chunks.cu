// The softmax masses of sampled queries over a chunk of pages, bound by the speed of reading keys.
// As in decode, each warp owns a part of every page, feeds its own ring in shared memory and keeps
// states of its own; the warps meet at the end. A warp holds 32 keys as right operands and meets
// the sampled rows of each head that shares them: 16 rows are one tile of the product.

#include "kernels/core/bits.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/cp_async.cuh"
#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/pbs/audit_state.cuh"

namespace pbserve::kernels::cuda {
namespace {

template <int kHeadDim>
struct AuditConfig {
  static constexpr int kDim = kHeadDim;
  static constexpr int kHeads = 4;  // of a KV head that a block takes
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kSlice = kPbsBlock / kWarps;  // keys of a page that a warp takes
  static constexpr int kSliceBytes = kSlice * kDim * 2;
  // 24 KB a warp: two blocks fit on a multiprocessor and have at least 128 KB in flight.
  static constexpr int kStages = 24 * 1024 / kSliceBytes;
  static constexpr int kBlocksPerSm = 2;

  struct Shared {
    alignas(256) uint8_t rings[kWarps][kStages][kSliceBytes];
    alignas(256) uint8_t queries[kHeads][kAuditRows * kDim * 2];

    // The states of a warp at the end, in its ring.
    __device__ AuditState& state(int warp, int head, int row) {
      return reinterpret_cast<AuditState*>(rings[warp])[head * kAuditRows + row];
    }
  };
  static_assert(kBlocksPerSm * (sizeof(Shared) + 1024) <= 228 * 1024);
};

// What a block works on: pages [first_page, end_page) of an audited block for some heads.
struct AuditItem {
  AuditBlock block;
  int audited;
  int kv_head;
  int first_head;
  int num_heads;
  int chunk;
  int first_page;
  int end_page;
};

template <class Config>
__device__ __forceinline__ AuditItem item_of_block(const AuditParams& p) {
  const int head_tiles = (p.group + Config::kHeads - 1) / Config::kHeads;
  const int tile = blockIdx.y % head_tiles;
  AuditItem item;
  item.audited = blockIdx.z;
  item.block = audit_block(p, item.audited);
  item.kv_head = blockIdx.y / head_tiles;
  item.first_head = item.kv_head * p.group + tile * Config::kHeads;
  item.num_heads = min(Config::kHeads, p.group - tile * Config::kHeads);
  item.chunk = blockIdx.x;
  item.first_page = item.chunk * item.block.chunk_pages;
  item.end_page = min(item.first_page + item.block.chunk_pages, item.block.number + 1);
  return item;
}

// Sampled rows of the item's heads; the last one again where there are fewer, the last head too.
template <class Config>
__device__ __forceinline__ void copy_queries(uint32_t to, const AuditItem& item,
                                             const AuditParams& p) {
  constexpr int kChunks = Config::kDim / 8;
  for (int i = threadIdx.x; i < Config::kHeads * kAuditRows * kChunks; i += Config::kThreads) {
    const int row = i / kChunks % kAuditRows;
    const int head = i / kChunks / kAuditRows;
    const int64_t token = item.block.first_row + min(row, item.block.num_rows - 1);
    const int64_t from = token * p.num_q_heads + item.first_head + min(head, item.num_heads - 1);
    cp_async_16(
        to + head * kAuditRows * Config::kDim * 2 + tile_offset<Config::kDim>(row, i % kChunks),
        p.q + from * Config::kDim + i % kChunks * 8);
  }
}

// Starts the copies of a warp's slices, a page each.
template <class Config>
class AuditLoader {
 public:
  __device__ AuditLoader(const AuditParams& params, const AuditItem& item, uint32_t ring)
      : params_(params), item_(item), ring_(ring), page_(item.first_page) {
    const int mine = page_ + static_cast<int>(threadIdx.x % kWarpSize);
    lane_page_ = mine < min(item.end_page, item.block.num_candidates) ? params.pages[mine] : 0;
  }

  // The next slice into the next stage, as one group of copies; past the last one an empty group.
  __device__ void issue() {
    const int number = __shfl_sync(kFullWarp, lane_page_, page_ - item_.first_page);
    if (page_ < item_.end_page) copy_slice(number);
    cp_async_commit();
    ++page_;
    stage_ = stage_ + 1 == Config::kStages ? 0 : stage_ + 1;
  }

 private:
  __device__ void copy_slice(int number) {
    constexpr int kDim = Config::kDim;
    constexpr int kChunks = kDim / 8;
    constexpr int kKeysAtOnce = kWarpSize / kChunks;
    const bool is_own = page_ >= item_.block.num_candidates;
    const int64_t page = is_own ? page_ - params_.job_block : number;
    const int lane = threadIdx.x % kWarpSize;
    const int key = threadIdx.x / kWarpSize * Config::kSlice + lane / kChunks;
    const __nv_bfloat16* from =
        (is_own ? params_.own_k : params_.k_pages) +
        ((page * params_.num_kv_heads + item_.kv_head) * kPbsBlock + key) * kDim +
        lane % kChunks * 8;
    const uint32_t to = ring_ + stage_ * Config::kSliceBytes;
#pragma unroll
    for (int i = 0; i < Config::kSlice; i += kKeysAtOnce) {
      cp_async_16(to + tile_offset<kDim>(i + lane / kChunks, lane % kChunks), from + i * kDim);
    }
  }

  const AuditParams& params_;
  const AuditItem& item_;
  uint32_t ring_;
  int page_;
  int lane_page_;
  int stage_ = 0;
};

// 32 keys as `b` fragments.
template <int kDim>
struct SliceKeys {
  uint32_t b[kDim / 16][2][4];

  __device__ __forceinline__ void load(uint32_t slice) {
    const uint32_t address = b_lane_address<kDim>(slice, 0, threadIdx.x % kWarpSize);
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      ldmatrix_x4(b[k][0], address ^ (32 * k));
      ldmatrix_x4(b[k][1], (address ^ (32 * k)) + 16 * kDim * 2);
    }
  }

  // scores[n] = 16 rows times the keys [8 n, 8 n + 8).
  __device__ __forceinline__ void multiply(float (&scores)[4][4], uint32_t queries) const {
    const uint32_t address = a_lane_address<kDim>(queries, 0, threadIdx.x % kWarpSize);
#pragma unroll
    for (int i = 0; i < 16; ++i) scores[i / 4][i % 4] = 0.f;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t a[4];
      ldmatrix_x4(a, address ^ (32 * k));
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        mma(scores[n], a, b[k][n / 2][n % 2 * 2], b[k][n / 2][n % 2 * 2 + 1]);
      }
    }
  }
};

// Keys behind a row's own: what was read there may be anything. `first_key` and `first_row` count
// from the beginning of the query block, the thread's first of each.
__device__ __forceinline__ void mask_later(float (&scores)[4][4], int first_key, int first_row) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int key = first_key + i / 4 * 8 + i % 2;
    if (key > first_row + i % 4 / 2 * 8) scores[i / 4][i % 4] = -__int_as_float(0x7f800000);
  }
}

// One step of the online softmax over the thread's own columns; r is the upper or the lower row.
__device__ __forceinline__ void add_scores(AuditState& state, const float (&scores)[4][4], int r,
                                           bool is_taken, float scale_log2) {
  float top = fmaxf(scores[0][2 * r], scores[0][2 * r + 1]);
#pragma unroll
  for (int n = 1; n < 4; ++n) top = fmaxf(top, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
  top = fmaxf(state.top, top * scale_log2);
  const float base = base_of(top);
  float sum = 0.f;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    sum += fast_exp2(fmaf(scores[n][2 * r], scale_log2, -base));
    sum += fast_exp2(fmaf(scores[n][2 * r + 1], scale_log2, -base));
  }
  const float decay = fast_exp2(state.top - base);
  state = {.top = top,
           .taken = fmaf(state.taken, decay, is_taken ? sum : 0.f),
           .missed = fmaf(state.missed, decay, is_taken ? 0.f : sum)};
}

// The warps' states of a row in the order of the warps, by one thread for each row.
template <class Config>
__device__ __forceinline__ void store_chunk(typename Config::Shared& shared, const AuditItem& item,
                                            const AuditParams& p) {
  const int head = threadIdx.x / kAuditRows;
  const int row = threadIdx.x % kAuditRows;
  if (head >= item.num_heads) return;
  AuditState state = shared.state(0, head, row);
#pragma unroll
  for (int i = 1; i < Config::kWarps; ++i) state = merged(state, shared.state(i, head, row));
  const int64_t chunk =
      (int64_t{item.audited} * p.num_q_heads + item.first_head + head) * p.num_chunks + item.chunk;
  p.partials[chunk * kAuditRows + row] = {state.top, state.taken, state.missed, 0.f};
}

// Block (chunk, KV head and heads of it, audited block).
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    audit_chunks_kernel(const __grid_constant__ AuditParams p) {
  extern __shared__ __align__(256) uint8_t raw[];
  auto& shared = *reinterpret_cast<typename Config::Shared*>(raw);
  constexpr int kHeads = Config::kHeads;
  let_next_kernel_start();
  const AuditItem item = item_of_block<Config>(p);
  if (item.first_page >= item.end_page) return;
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const uint32_t ring = shared_address(shared.rings[warp]);
  const uint32_t queries = shared_address(shared.queries);
  copy_queries<Config>(queries, item, p);  // part of the first slice's group
  AuditLoader<Config> loader(p, item, ring);
  for (int i = 0; i < Config::kStages - 1; ++i) loader.issue();

  uint32_t taken[kHeads];  // bit i: page first_page + i
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    const int64_t head = item.first_head + min(h, item.num_heads - 1);
    const uint32_t* words = p.mask + (head * p.mask_blocks + item.block.block) * p.num_words;
    const int word = item.first_page / 32;
    const uint32_t low = word < p.num_words ? words[word] : 0;
    const uint32_t high = word + 1 < p.num_words ? words[word + 1] : 0;
    taken[h] = __funnelshift_r(low, high, item.first_page % 32);
  }
  AuditState states[kHeads][2];
#pragma unroll
  for (int i = 0; i < kHeads * 2; ++i) states[i / 2][i % 2] = no_mass();

  cp_async_wait<Config::kStages - 2>();
  __syncthreads();  // the queries are complete
  int stage = 0;
#pragma unroll 1
  for (int page = item.first_page; page < item.end_page; ++page) {
    cp_async_wait<Config::kStages - 2>();
    __syncwarp();  // the slice is complete, and the one before it is no longer read
    loader.issue();
    SliceKeys<Config::kDim> keys;
    keys.load(ring + stage * Config::kSliceBytes);
    stage = stage + 1 == Config::kStages ? 0 : stage + 1;
    const bool is_own = page >= item.block.num_candidates;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h >= item.num_heads) continue;
      float scores[4][4];
      keys.multiply(scores, queries + h * kAuditRows * Config::kDim * 2);
      if (page == item.block.number) {
        mask_later(scores, warp * Config::kSlice + lane % 4 * 2,
                   item.block.first_row % kPbsBlock + lane / 4);
      }
      const bool is_taken = is_own || (taken[h] >> (page - item.first_page) & 1) != 0;
      add_scores(states[h][0], scores, 0, is_taken, p.scale_log2);
      add_scores(states[h][1], scores, 1, is_taken, p.scale_log2);
    }
  }
  __syncwarp();  // the last slice has been read; only empty groups of copies are left

#pragma unroll
  for (int i = 0; i < kHeads * 2; ++i) {
    AuditState state = states[i / 2][i % 2];
#pragma unroll
    for (int distance = 1; distance < 4; distance *= 2) {
      state = merged(state, {.top = __shfl_xor_sync(kFullWarp, state.top, distance),
                             .taken = __shfl_xor_sync(kFullWarp, state.taken, distance),
                             .missed = __shfl_xor_sync(kFullWarp, state.missed, distance)});
    }
    if (lane % 4 == 0) shared.state(warp, i / 2, lane / 4 + i % 2 * 8) = state;
  }
  __syncthreads();
  store_chunk<Config>(shared, item, p);
}

}  // namespace

template <int kDim>
void audit_chunks(const AuditParams& params, cudaStream_t stream) {
  using Config = AuditConfig<kDim>;
  constexpr int kSharedBytes = sizeof(typename Config::Shared);
  const auto kernel = audit_chunks_kernel<Config>;
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
      "pbs_audit: shared memory");
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared),
             "pbs_audit: shared memory");
  const int heads = params.num_kv_heads * ceil_div(params.group, Config::kHeads);
  const dim3 grid(params.num_chunks, heads, params.num_audited);
  kernel<<<grid, Config::kThreads, kSharedBytes, stream>>>(params);
  check_launch("pbs_audit");
}

template void audit_chunks<64>(const AuditParams&, cudaStream_t);
template void audit_chunks<128>(const AuditParams&, cudaStream_t);

}  // namespace pbserve::kernels::cuda
