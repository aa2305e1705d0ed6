// Pages that keep their order: rows copied as they are, and the moments of pages.

#include "kernels/core/bits.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/cp_async.cuh"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/pbs/order_place.cuh"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kCopyThreads = 256;
constexpr int kPoolThreads = 128;

// Block (page, KV head): the rows of one page that exist.
__global__ void __launch_bounds__(kCopyThreads)
    copy_natural_kernel(const __grid_constant__ OrderParams p, int head_dim, int begin, int end) {
  const int first = begin + blockIdx.x * kPbsBlock;
  const int kv_head = blockIdx.y;
  const int64_t page = p.pages[first / kPbsBlock];
  const int64_t from = int64_t{own_row(p, first, kv_head)} * head_dim;
  const int64_t to = (page * p.num_kv_heads + kv_head) * kPbsBlock * head_dim;
  const int num_chunks = min(end - first, kPbsBlock) * head_dim / 8;
#pragma unroll 4
  for (int i = threadIdx.x; i < num_chunks; i += kCopyThreads) {
    const uint4 key = __ldg(reinterpret_cast<const uint4*>(p.own_k + from) + i);
    const uint4 value = __ldg(reinterpret_cast<const uint4*>(p.own_v + from) + i);
    reinterpret_cast<uint4*>(p.k_pages + to)[i] = key;
    reinterpret_cast<uint4*>(p.v_pages + to)[i] = value;
  }
}

// Block (page, KV head). The page passes through shared memory: all of it is in flight at once, and
// each thread then sums its own elements in the order of the page.
template <int kDim>
__global__ void __launch_bounds__(kPoolThreads)
    pool_pages_kernel(const __grid_constant__ PoolParams p) {
  __shared__ __align__(16) __nv_bfloat162 keys[kPbsBlock][kDim / 2];
  const int64_t head = int64_t{p.pages[blockIdx.x]} * p.num_kv_heads + blockIdx.y;
  const __nv_bfloat16* from = p.k_pages + head * kPbsBlock * kDim;
  const uint32_t to = shared_address(keys);
#pragma unroll
  for (int i = threadIdx.x; i < kPbsBlock * kDim / 8; i += kPoolThreads) {
    cp_async_16(to + i * 16, from + i * 8);
  }
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  const int pair = threadIdx.x;
  if (pair >= kDim / 2) return;
  const PairMoments moments = moments_of([&](int i) { return keys[i][pair]; });
  reinterpret_cast<__nv_bfloat162*>(p.k_mean + head * kDim)[pair] = moments.mean;
  reinterpret_cast<__nv_bfloat162*>(p.k_var + head * kDim)[pair] = moments.var;
}

}  // namespace

void copy_natural(const OrderParams& params, int head_dim, int begin, int end,
                  cudaStream_t stream) {
  if (begin == end) return;
  const dim3 grid(ceil_div(end - begin, kPbsBlock), params.num_kv_heads);
  copy_natural_kernel<<<grid, kCopyThreads, 0, stream>>>(params, head_dim, begin, end);
  check_launch("pbs_order");
}

void pool_pages(const PoolParams& params, int head_dim, cudaStream_t stream) {
  if (params.num_pooled == 0) return;
  const dim3 grid(params.num_pooled, params.num_kv_heads);
  head_dim == 64 ? pool_pages_kernel<64><<<grid, kPoolThreads, 0, stream>>>(params)
                 : pool_pages_kernel<128><<<grid, kPoolThreads, 0, stream>>>(params);
  check_launch("pbs_pool");
}

void pbs_pool(const PbsPoolArgs& args, CudaHandle stream) {
  check_heads("pbs_pool", args.pages.k.at(0));
  pool_pages({.k_pages = device_data<__nv_bfloat16>(args.pages.k),
              .k_mean = device_data<__nv_bfloat16>(args.pages.k_mean),
              .k_var = device_data<__nv_bfloat16>(args.pages.k_var),
              .pages = device_data<int32_t>(args.block_table),
              .num_pooled = args.num_pages,
              .num_kv_heads = static_cast<int32_t>(args.pages.k.dim(1))},
             static_cast<int>(args.pages.k.dim(3)), stream_of(stream));
}

}  // namespace pbserve::kernels::cuda
