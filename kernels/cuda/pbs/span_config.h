// Tiles, threads and shared memory of the kernel that orders a span in one pass.
#pragma once

#include <cuda.h>

#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/wgmma.cuh"
#include "kernels/cuda/pbs/order_params.h"

namespace pbserve::kernels::cuda {

struct SpanParams {
  OrderParams order;
  CUtensorMap q_map;  // [job rows, Hq, D], boxes of SpanConfig::kRows rows of one head
  CUtensorMap k_map;  // own_k as rows [job pages Hkv B, D], boxes of a page
};

// Two blocks of a cluster share the keys of a span and KV head, 512 each: a warpgroup keeps the
// products of 64 proxies with 256 keys in registers.
template <int kHeadDim>
struct SpanConfig {
  static constexpr int kDim = kHeadDim;
  static constexpr int kKeys = 256;  // of a warpgroup
  static constexpr int kRows = 64;   // of a chunk of proxies: half a head's
  static constexpr int kClusterSize = 2;
  static constexpr int kBlockGroups = 2;  // warpgroups of a block
  static constexpr int kGroups = kClusterSize * kBlockGroups;
  static constexpr int kSpanKeys = kGroups * kKeys;
  static constexpr int kThreads = 128 * kBlockGroups;
  static constexpr int kStages = 4;  // chunks of proxies on their way

  // Named barriers of the block; 0 is __syncthreads'.
  static constexpr int kGroupBarrier = 1;  // and the next: all warps of one warpgroup
  static constexpr int kTurnBarrier = 1 + kBlockGroups;

  static constexpr int kPanels = kDim / kPanelCols;
  static constexpr uint32_t kKeyPanelBytes = kKeys * kPanelRowBytes;
  static constexpr uint32_t kRowPanelBytes = kRows * kPanelRowBytes;

  // The blocks of a cluster have it at the same address.
  struct Shared {
    alignas(1024) uint8_t k[kBlockGroups][kPanels * kKeyPanelBytes];
    alignas(1024) uint8_t q[kStages][kPanels * kRowPanelBytes];
    float2 states[2][kGroups][kRows];    // (top, sum) of each row over each warpgroup's keys
    float sums[kBlockGroups][4][kKeys];  // of each key's probabilities, a warp's rows each
    alignas(16) uint32_t scores[kBlockGroups][kKeys];
    uint8_t order[kBlockGroups][kKeys];
    Mbarrier k_full[kBlockGroups];
    Mbarrier q_full[kStages];
    Mbarrier states_full[2];

    __device__ void init_barriers() {
      for (Mbarrier& barrier : k_full) barrier.init(1);
      for (Mbarrier& barrier : q_full) barrier.init(1);
      for (Mbarrier& barrier : states_full) barrier.init(1);
      fence_barrier_init();
    }
  };
  static constexpr int kSharedBytes = sizeof(Shared) + 1024;  // to align it by hand

  // Where 8 elements of a warpgroup's key are, for order_place.cuh.
  __device__ static uint32_t offset(int key, int chunk) {
    return chunk / 8 * kKeyPanelBytes + tile_offset<kPanelCols>(key, chunk % 8);
  }
};

// Which keys a warpgroup has.
struct SpanGroup {
  OrderSpan span;
  int kv_head;
  int rank;        // of the block in its cluster
  int group;       // of the warpgroup in its block
  int number;      // of the warpgroup in the cluster
  int num_groups;  // of the cluster that have keys
  int begin;       // of its keys, in the job
  int num_keys;    // B or 2 B; not positive for a warpgroup without

  __device__ int num_blocks() const { return num_groups > 2 ? 2 : 1; }  // that have keys
};

template <class Config>
__device__ inline SpanGroup span_group(const OrderParams& p) {
  SpanGroup g;
  g.span = order_span(p, blockIdx.x / Config::kClusterSize);
  g.kv_head = blockIdx.y;
  g.rank = blockIdx.x % Config::kClusterSize;
  g.group = threadIdx.x / 128;
  g.number = g.rank * Config::kBlockGroups + g.group;
  g.num_groups = (g.span.num_keys + Config::kKeys - 1) / Config::kKeys;
  g.begin = g.span.begin + g.number * Config::kKeys;
  g.num_keys = min(Config::kKeys, g.span.num_keys - g.number * Config::kKeys);
  return g;
}

}  // namespace pbserve::kernels::cuda
