// A product's bias in the type that cuBLASLt reads it in.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/core/tensor.h"

namespace pbserve::kernels::cuda {

// to [N] (bfloat16 or float32) = bias [N] float32.
void round_bias(const Tensor& to, const Tensor& bias, cudaStream_t stream);

}  // namespace pbserve::kernels::cuda
