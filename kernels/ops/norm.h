// RMS norm over the residual stream, fused with the addition of a layer's output to it.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

struct RmsNormArgs {
  Tensor y;         // [T, C] activation dtype, or empty: only the addition
  Tensor x;         // [T, C] activation dtype, or empty: the residual alone is normalised
  Tensor weight;    // [C] float32; not read without y
  Tensor residual;  // [T, C] float32: residual += x first, then the sum is normalised
  float eps;
};

// residual += x; y = residual / sqrt(mean(residual^2) + eps) * weight. The residual stream stays in
// float32 through all layers: in bf16 its rounding is the largest error of the network.
void rms_norm(const RmsNormArgs& args, const Stream& stream);

namespace cpu {
void rms_norm(const RmsNormArgs& args, ThreadPool& pool);
}
namespace cuda {
void rms_norm(const RmsNormArgs& args, CudaHandle stream);
}

}  // namespace pbserve::kernels
