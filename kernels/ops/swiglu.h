// SwiGLU's gated half of an MLP (Shazeer, arXiv 2002.05202): both products and what joins them.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/linear.h"

namespace pbserve::kernels {

struct SwigluArgs {
  Tensor y;              // [T, F]
  Tensor x;              // [T, K], y's dtype
  LinearWeight gate_up;  // [2 F, K], y's dtype: gate, then up
  Tensor scratch;  // [T, 2 F], y's dtype: for both products where they take a step of their own,
                   // which on a GPU few rows do, odd shapes, and determinism
};

// y = silu(x gate^T) * (x up^T). Where it takes two steps the products are rounded to y's dtype
// between them. A row's result depends on the rows beside it as that of `linear` does.
void swiglu(const SwigluArgs& args, const Stream& stream);

namespace cpu {
void swiglu(const SwigluArgs& args, ThreadPool& pool);
}
namespace cuda {
void swiglu(const SwigluArgs& args, CudaHandle stream);
}

}  // namespace pbserve::kernels
