// What scorers read of the candidates, from the pages to one matrix per KV head: the mean keys,
// their variances, the first keys.

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/pbs/select_params.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kElements = 8;  // bf16 in 16 bytes: of a thread

enum Gathered : unsigned { kMeans, kVars, kFirsts };

// Of KV head `head` of a page: D elements.
__device__ __forceinline__ const __nv_bfloat16* row_of(const SelectParams& p, unsigned what,
                                                       int64_t page, int head) {
  const int64_t row = page * p.num_kv_heads + head;
  if (what == kFirsts) return p.k + row * kPbsBlock * p.head_dim;
  return (what == kMeans ? p.k_mean : p.k_var) + row * p.head_dim;
}

// Block y: candidate; z: what is gathered. Threads x: elements of all KV heads.
__global__ void __launch_bounds__(kThreads)
    gather_candidates_kernel(const __grid_constant__ SelectParams p) {
  let_next_kernel_start();
  const int idx = (static_cast<int>(blockIdx.x) * kThreads + threadIdx.x) * kElements;
  const int head = idx / p.head_dim;
  const int element = idx % p.head_dim;
  const int candidate = blockIdx.y;
  if (head >= p.num_kv_heads) return;
  uint4 value = {};
  if (candidate < num_candidates_of(p, p.num_blocks - 1)) {
    const __nv_bfloat16* row = row_of(p, blockIdx.z, p.block_table[candidate], head);
    value = *reinterpret_cast<const uint4*>(row + element);
  }
  __nv_bfloat16* gathered = blockIdx.z == kMeans  ? p.means
                            : blockIdx.z == kVars ? p.vars
                                                  : p.firsts;
  const int64_t row = int64_t{head} * p.num_padded_candidates + candidate;
  *reinterpret_cast<uint4*>(gathered + row * p.head_dim + element) = value;
}

void gather(const SelectParams& params, int num_matrices, cudaStream_t stream) {
  const int width = params.num_kv_heads * params.head_dim;
  const dim3 grid(ceil_div(width, kThreads * kElements), params.num_padded_candidates,
                  num_matrices);
  gather_candidates_kernel<<<grid, kThreads, 0, stream>>>(params);
  check_launch("pbs_select");
}

}  // namespace

void gather_means(const SelectParams& params, cudaStream_t stream) {
  gather(params, kMeans + 1, stream);
}

void gather_candidates(const SelectParams& params, cudaStream_t stream) {
  gather(params, kFirsts + 1, stream);
}

}  // namespace pbserve::kernels::cuda
