// Streams and events.
#include "kernels/core/stream.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

cudaEvent_t event_of(CudaHandle handle) { return static_cast<cudaEvent_t>(handle); }

}  // namespace

StreamState::StreamState() = default;

StreamState::~StreamState() {
  // Late in a shutdown the driver may be gone: errors are ignored.
  if (stream != nullptr) cudaStreamDestroy(stream);
  cudaFree(counters);
}

absl::StatusOr<CudaHandle> create_stream(int index, Determinism determinism) {
  RETURN_IF_ERROR(to_status(cudaSetDevice(index), "GPU selection"));
  auto state = std::make_unique<StreamState>();
  state->device_index = index;
  RETURN_IF_ERROR(to_status(
      cudaDeviceGetAttribute(&state->num_sms, cudaDevAttrMultiProcessorCount, index), "GPU size"));
  RETURN_IF_ERROR(to_status(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking),
                            "creation of a stream"));
  constexpr size_t kCounterBytes = StreamState::kNumCounters * sizeof(int32_t);
  void* counters = nullptr;
  RETURN_IF_ERROR(to_status(cudaMalloc(&counters, kCounterBytes), "allocation of counters"));
  state->counters = static_cast<int32_t*>(counters);
  RETURN_IF_ERROR(to_status(cudaMemsetAsync(counters, 0, kCounterBytes, state->stream),
                            "clearing of counters"));
  ASSIGN_OR_RETURN(state->matmul, Matmul::create(determinism));
  return CudaHandle(state.release());
}

void destroy_stream(CudaHandle stream) { delete &state_of(stream); }

void synchronize(CudaHandle stream) {
  check_cuda(cudaStreamSynchronize(stream_of(stream)), "synchronize");
}

void bind_thread(CudaHandle stream) {
  check_cuda(cudaSetDevice(state_of(stream).device_index), "GPU selection");
}

CudaHandle create_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreate(&event), "creation of an event");
  return event;
}

void destroy_event(CudaHandle event) { cudaEventDestroy(event_of(event)); }

void record_event(CudaHandle event, CudaHandle stream) {
  check_cuda(cudaEventRecord(event_of(event), stream_of(stream)), "record of an event");
}

bool is_event_reached(CudaHandle event) {
  const cudaError_t error = cudaEventQuery(event_of(event));
  if (error != cudaErrorNotReady) check_cuda(error, "query of an event");
  return error == cudaSuccess;
}

void wait_event(CudaHandle event) {
  check_cuda(cudaEventSynchronize(event_of(event)), "wait for an event");
}

double ms_between(CudaHandle earlier, CudaHandle later) {
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, event_of(earlier), event_of(later)), "time of events");
  return ms;
}

}  // namespace pbserve::kernels::cuda
