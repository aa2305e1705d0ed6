// The prefill kernel's launcher; one instantiation a file under inst/.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention/prefill_params.h"

namespace pbserve::kernels::cuda {

template <int kHeadDim, bool kIsSparse>
void launch_prefill_sm90(const PrefillParams& params, int num_sms, cudaStream_t stream);

}  // namespace pbserve::kernels::cuda
