// The decode kernels' launchers; one instantiation a file under inst/.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention/decode_params.h"

namespace pbserve::kernels::cuda {

// Writes `out` for rows of one chunk, `states` and `partials` for rows of several.
template <int kHeadDim>
void launch_paged_decode(const DecodeParams& params, int num_sms, cudaStream_t stream);

// Writes `out` for rows of no chunk and of several.
template <int kHeadDim>
void launch_decode_combine(const DecodeParams& params, cudaStream_t stream);

}  // namespace pbserve::kernels::cuda
