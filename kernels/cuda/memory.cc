// Device and pinned memory, and copies between them.
#include "kernels/core/buffer.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {

absl::StatusOr<std::byte*> allocate(int index, size_t num_bytes) {
  RETURN_IF_ERROR(to_status(cudaSetDevice(index), "GPU selection"));
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, num_bytes);
  if (error == cudaSuccess) return static_cast<std::byte*>(memory);
  cudaGetLastError();  // a failed allocation is not sticky: later launches must not find it
  size_t free = 0;
  size_t total = 0;
  cudaMemGetInfo(&free, &total);
  return to_status(error, "allocation of " + std::to_string(num_bytes) + " bytes of GPU memory, " +
                              std::to_string(free) + " of " + std::to_string(total) + " free");
}

void release(int, std::byte* memory) { cudaFree(memory); }

absl::StatusOr<std::byte*> allocate_pinned(size_t num_bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, num_bytes, cudaHostAllocDefault);
  if (error == cudaSuccess) return static_cast<std::byte*>(memory);
  cudaGetLastError();  // as above
  return to_status(error, "allocation of " + std::to_string(num_bytes) + " bytes of pinned memory");
}

void release_pinned(std::byte* memory) { cudaFreeHost(memory); }

void copy_to_device(void* device, const void* host, size_t num_bytes, CudaHandle stream) {
  check_cuda(cudaMemcpyAsync(device, host, num_bytes, cudaMemcpyHostToDevice, stream_of(stream)),
             "copy to the device");
}

void copy_to_host(void* host, const void* device, size_t num_bytes, CudaHandle stream) {
  check_cuda(cudaMemcpyAsync(host, device, num_bytes, cudaMemcpyDeviceToHost, stream_of(stream)),
             "copy to the host");
}

void fill_zero(void* device, size_t num_bytes, CudaHandle stream) {
  check_cuda(cudaMemsetAsync(device, 0, num_bytes, stream_of(stream)), "fill with zeros");
}

}  // namespace pbserve::kernels::cuda
