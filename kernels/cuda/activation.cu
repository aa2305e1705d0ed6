// A thread computes one 16-byte vector of y from one of gate and one of up.
#include "kernels/ops/activation.h"

#include "kernels/core/bits.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct Params {
  T* y;              // [T, F]
  const T* gate_up;  // [T, 2 F]
  int64_t width;     // F
  unsigned blocks_per_row;
};

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(Params<T> p) {
  const int64_t row = blockIdx.x / p.blocks_per_row;
  const int64_t block = blockIdx.x % p.blocks_per_row;
  const int64_t at = (block * kThreads + threadIdx.x) * kVec;
  if (at >= p.width) return;
  const T* gates = p.gate_up + row * 2 * p.width;
  float gate[kVec];
  float up[kVec];
  load(gate, gates + at);
  load(up, gates + p.width + at);
#pragma unroll
  for (int i = 0; i < kVec; ++i) gate[i] = gate[i] / (1.f + expf(-gate[i])) * up[i];
  store(p.y + row * p.width + at, gate);
}

template <class T, int kVec>
void launch(Params<T> p, int64_t num_rows, cudaStream_t stream) {
  const int64_t blocks_per_row = ceil_div<int64_t>(p.width, kThreads * kVec);
  const int64_t grid = num_rows * blocks_per_row;
  check(grid <= INT32_MAX, "silu_mul: too many rows");
  p.blocks_per_row = static_cast<unsigned>(blocks_per_row);
  silu_mul_kernel<T, kVec><<<static_cast<unsigned>(grid), kThreads, 0, stream>>>(p);
  check_launch("silu_mul");
}

template <class T>
void silu_mul_rows(const SiluMulArgs& args, cudaStream_t stream) {
  constexpr int kVec = kVectorOf<T>;
  const Params<T> p{.y = device_data<T>(args.y),
                    .gate_up = device_data<T>(args.gate_up),
                    .width = args.y.dim(1),
                    .blocks_per_row = 0};
  const bool is_wide =
      is_vectorizable<kVec>(p.y, p.width) && is_vectorizable<kVec>(p.gate_up, p.width);
  is_wide ? launch<T, kVec>(p, args.y.dim(0), stream) : launch<T, 1>(p, args.y.dim(0), stream);
}

}  // namespace

void silu_mul(const SiluMulArgs& args, CudaHandle stream) {
  if (args.y.numel() == 0) return;
  args.y.dtype == DType::kBF16 ? silu_mul_rows<__nv_bfloat16>(args, stream_of(stream))
                               : silu_mul_rows<float>(args, stream_of(stream));
}

}  // namespace pbserve::kernels::cuda
