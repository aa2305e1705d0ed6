#include "kernels/cuda/attention/decode_combine.cuh"
#include "kernels/cuda/attention/paged_decode.cuh"

namespace pbserve::kernels::cuda {

template void launch_paged_decode<64>(const DecodeParams&, int, cudaStream_t);
template void launch_decode_combine<64>(const DecodeParams&, cudaStream_t);

}  // namespace pbserve::kernels::cuda
