// A weight lies on the GPU as it comes, row-major [N, K]: cuBLASLt reads it as a transposed
// column-major matrix.
#include "kernels/ops/linear.h"

#include "kernels/core/bits.h"
#include "kernels/core/buffer.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/round_bias.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) round_bias_kernel(T* to, const float* bias, int size) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < size) to[i] = narrow<T>(bias[i]);
}

template <class T>
void launch_round_bias(const Tensor& to, const Tensor& bias, cudaStream_t stream) {
  const auto size = static_cast<int>(to.numel());
  round_bias_kernel<T><<<ceil_div(size, kThreads), kThreads, 0, stream>>>(device_data<T>(to),
                                                                          bias.as<float>(), size);
  check_launch("linear: bias");
}

}  // namespace

void round_bias(const Tensor& to, const Tensor& bias, cudaStream_t stream) {
  to.dtype == DType::kBF16 ? launch_round_bias<__nv_bfloat16>(to, bias, stream)
                           : launch_round_bias<float>(to, bias, stream);
}

void pack_weight(const PackWeightArgs& args, CudaHandle stream) {
  const LinearWeight& weight = args.weight;
  const size_t element = size_of(weight.packed.dtype);
  const auto offset = static_cast<size_t>(args.row_begin * weight.num_in) * element;
  const auto num_bytes = static_cast<size_t>(args.rows.numel()) * element;
  if (num_bytes == 0) return;
  copy_to_device(static_cast<std::byte*>(weight.packed.data) + offset, args.rows.data, num_bytes,
                 stream);
}

void linear(const LinearArgs& args, CudaHandle stream) {
  state_of(stream).matmul->run(args, stream_of(stream));
}

}  // namespace pbserve::kernels::cuda
