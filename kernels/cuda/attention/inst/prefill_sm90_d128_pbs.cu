#include "kernels/cuda/attention/prefill_sm90.cuh"

namespace pbserve::kernels::cuda {

template void launch_prefill_sm90<128, true>(const PrefillParams&, int, cudaStream_t);

}  // namespace pbserve::kernels::cuda
