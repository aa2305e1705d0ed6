// The one-pass kernel's launcher.
#pragma once

#include "kernels/cuda/pbs/order_params.h"

namespace pbserve::kernels::cuda {

inline constexpr int32_t kOnePassKeysMax = 1024;

// All spans of the job, for head size kDim, 64 or 128. `params` without batch and scratch.
// REQUIRES: no span is longer than kOnePassKeysMax; the job has a complete segment.
template <int kDim>
void order_spans(const OrderParams& params, const PbsInput& input, cudaStream_t stream);

}  // namespace pbserve::kernels::cuda
