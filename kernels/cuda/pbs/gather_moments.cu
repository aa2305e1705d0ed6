// The mean keys of the candidates, and their variances, from the pages to one matrix per KV head.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kElements = 8;  // bf16 in 16 bytes: of a thread

// Block y: candidate; z: which moment. A page has a row of Hkv D elements of each.
__global__ void __launch_bounds__(kThreads)
    gather_moments_kernel(const __grid_constant__ SelectParams p) {
  let_next_kernel_start();
  const int width = p.num_kv_heads * p.head_dim;
  const int element = (static_cast<int>(blockIdx.x) * kThreads + threadIdx.x) * kElements;
  const int candidate = blockIdx.y;
  if (element >= width) return;
  const __nv_bfloat16* moments = blockIdx.z == 0 ? p.k_mean : p.k_var;
  __nv_bfloat16* gathered = blockIdx.z == 0 ? p.means : p.vars;
  uint4 value = {};
  if (candidate < num_candidates_of(p, p.num_blocks - 1)) {
    const __nv_bfloat16* row = moments + int64_t{p.block_table[candidate]} * width;
    value = *reinterpret_cast<const uint4*>(row + element);
  }
  const int64_t row = int64_t{element / p.head_dim} * p.num_padded_candidates + candidate;
  *reinterpret_cast<uint4*>(gathered + row * p.head_dim + element % p.head_dim) = value;
}

void gather(const SelectParams& params, int num_moments, cudaStream_t stream) {
  const int width = params.num_kv_heads * params.head_dim;
  const dim3 grid(ceil_div(width, kThreads * kElements), params.num_padded_candidates, num_moments);
  gather_moments_kernel<<<grid, kThreads, 0, stream>>>(params);
  check_launch("pbs_select");
}

}  // namespace

void gather_means(const SelectParams& params, cudaStream_t stream) { gather(params, 1, stream); }

void gather_moments(const SelectParams& params, cudaStream_t stream) { gather(params, 2, stream); }

}  // namespace pbserve::kernels::cuda
