// pbs_order in one pass, for spans of at most 1,024 keys: a cluster of two blocks keeps the keys of
// a span and KV head in shared memory from the products with the proxies to their permuted copy.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/aligned_shared.cuh"
#include "kernels/cuda/pbs/order_place.cuh"
#include "kernels/cuda/pbs/order_spans.h"
#include "kernels/cuda/pbs/span_score.cuh"
#include "kernels/cuda/tensor_map.h"

namespace pbserve::kernels::cuda {
namespace {

// All threads of a warpgroup.
template <class Config>
__device__ __forceinline__ void group_sync(const SpanGroup& g) {
  named_barrier_sync(Config::kGroupBarrier + g.group, 128);
}

// From sums to scores to the order of each segment of the warpgroup's keys.
template <class Config>
__device__ __forceinline__ void rank_keys(typename Config::Shared& shared, const SpanGroup& g,
                                          const OrderParams& p) {
  const int thread = threadIdx.x % 128;
  uint32_t* scores = shared.scores[g.group];
  group_sync<Config>(g);  // the sums are there
  for (int key = thread; key < g.num_keys; key += 128) {
    float score = shared.sums[g.group][0][key];
#pragma unroll
    for (int warp = 1; warp < 4; ++warp) score += shared.sums[g.group][warp][key];
    const bool is_sink = p.sink_is_first && p.job.begin + g.begin + key == 0;
    scores[key] = is_sink ? kScoreOfSink : __float_as_uint(score);
  }
  group_sync<Config>(g);
  for (int key = thread; key < g.num_keys; key += 128) {
    const int first = key / p.segment * p.segment;
    const int place = first + rank_of(scores + first, key - first, p.segment);
    shared.order[g.group][place] = static_cast<uint8_t>(key);
  }
  group_sync<Config>(g);
}

// Cluster (span, KV head). Warpgroups without keys leave at once: nobody waits for them.
template <class Config>
__global__ void __cluster_dims__(Config::kClusterSize, 1, 1) __launch_bounds__(Config::kThreads, 1)
    order_spans_kernel(const __grid_constant__ SpanParams p) {
  extern __shared__ uint8_t raw[];
  auto& shared = aligned_shared<typename Config::Shared>(raw);
  const SpanGroup g = span_group<Config>(p.order);
  SpanScorer<Config> scorer(p, shared, g);
  if (threadIdx.x == 0) {
    shared.init_barriers();
    if (g.num_keys > 0) scorer.start();
  }
  __syncwarp();
  cluster_meet();  // the other block's barriers are ready
  if (g.num_keys <= 0) return;
  scorer.run();
  rank_keys<Config>(shared, g, p.order);
  const KeyGroup keys{.keys = shared.k[g.group],
                      .order = shared.order[g.group],
                      .begin = g.begin,
                      .num_keys = g.num_keys,
                      .kv_head = g.kv_head,
                      .thread = static_cast<int>(threadIdx.x % 128),
                      .num_threads = 128};
  const PageRows rows(p.order, keys);
  copy_permuted<Config::kDim, Config>(p.order, keys, rows);
  pool<Config::kDim, Config>(p.order, keys, rows);
}

}  // namespace

template <int kDim>
void order_spans(const OrderParams& params, const PbsInput& input, cudaStream_t stream) {
  using Config = SpanConfig<kDim>;
  static_assert(Config::kSpanKeys == kOnePassKeysMax);
  const Tensor& own = input.plan.own.k;
  const SpanParams p{
      .order = params,
      .q_map = make_head_map(input.q, Config::kRows),
      .k_map = make_row_map(own.data, own.dim(0) * own.dim(1) * own.dim(2), kDim, kPbsBlock)};
  const auto kernel = order_spans_kernel<Config>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  Config::kSharedBytes),
             "pbs_order: shared memory");
  const dim3 grid(num_spans(params.job) * Config::kClusterSize, params.num_kv_heads);
  kernel<<<grid, Config::kThreads, Config::kSharedBytes, stream>>>(p);
  check_launch("pbs_order");
}

template void order_spans<64>(const OrderParams&, const PbsInput&, cudaStream_t);
template void order_spans<128>(const OrderParams&, const PbsInput&, cudaStream_t);

}  // namespace pbserve::kernels::cuda
