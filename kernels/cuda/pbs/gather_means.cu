// The mean keys of the candidates, from their pages to one matrix per KV head.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kElements = 8;  // bf16 in 16 bytes: of a thread

// Block y: candidate. A page's means are one row of Hkv D elements.
__global__ void __launch_bounds__(kThreads)
    gather_means_kernel(const __grid_constant__ SelectParams p) {
  let_next_kernel_start();
  const int width = p.num_kv_heads * p.head_dim;
  const int element = (static_cast<int>(blockIdx.x) * kThreads + threadIdx.x) * kElements;
  const int candidate = blockIdx.y;
  if (element >= width) return;
  uint4 value = {};
  if (candidate < num_candidates_of(p, p.num_blocks - 1)) {
    const __nv_bfloat16* row = p.k_mean + int64_t{p.block_table[candidate]} * width;
    value = *reinterpret_cast<const uint4*>(row + element);
  }
  const int64_t row = int64_t{element / p.head_dim} * p.num_padded_candidates + candidate;
  *reinterpret_cast<uint4*>(p.means + row * p.head_dim + element % p.head_dim) = value;
}

}  // namespace

void gather_means(const SelectParams& params, cudaStream_t stream) {
  const int width = params.num_kv_heads * params.head_dim;
  const dim3 grid(ceil_div(width, kThreads * kElements), params.num_padded_candidates);
  gather_means_kernel<<<grid, kThreads, 0, stream>>>(params);
  check_launch("pbs_select");
}

}  // namespace pbserve::kernels::cuda
