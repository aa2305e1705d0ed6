// SwiGLU's pointwise half.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

struct SiluMulArgs {
  Tensor y;        // [T, F]
  Tensor gate_up;  // [T, 2 F]: gate, then up
};

// y = silu(gate) * up, in float32.
void silu_mul(const SiluMulArgs& args, const Stream& stream);

namespace cpu {
void silu_mul(const SiluMulArgs& args, ThreadPool& pool);
}
namespace cuda {
void silu_mul(const SiluMulArgs& args, CudaHandle stream);
}

}  // namespace pbserve::kernels
