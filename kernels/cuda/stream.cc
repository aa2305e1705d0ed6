// Streams and events.
#include "kernels/core/stream.h"

#include <utility>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/green_context.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

cudaEvent_t event_of(CudaHandle handle) { return static_cast<cudaEvent_t>(handle); }

// For a stream of the whole GPU, which becomes the calling thread's.
absl::StatusOr<std::unique_ptr<StreamState>> state_of_gpu(int index) {
  RETURN_IF_ERROR(to_status(cudaSetDevice(index), "GPU selection"));
  auto state = std::make_unique<StreamState>();
  state->device_index = index;
  RETURN_IF_ERROR(to_status(
      cudaDeviceGetAttribute(&state->num_sms, cudaDevAttrMultiProcessorCount, index), "GPU size"));
  return state;
}

// What belongs to every stream, however it was made.
absl::StatusOr<CudaHandle> complete(std::unique_ptr<StreamState> state, Determinism determinism) {
  constexpr size_t kCounterBytes = StreamState::kNumCounters * sizeof(int32_t);
  void* counters = nullptr;
  RETURN_IF_ERROR(to_status(cudaMalloc(&counters, kCounterBytes), "allocation of counters"));
  state->counters = static_cast<int32_t*>(counters);
  RETURN_IF_ERROR(to_status(cudaMemsetAsync(counters, 0, kCounterBytes, state->stream),
                            "clearing of counters"));
  const int num_sms = state->part != nullptr ? state->num_sms : 0;
  ASSIGN_OR_RETURN(state->matmul, Matmul::create(determinism, num_sms));
  return CudaHandle(state.release());
}

absl::StatusOr<CudaHandle> create_on(int index, std::unique_ptr<GreenContext> part,
                                     Determinism determinism) {
  auto state = std::make_unique<StreamState>();
  state->device_index = index;
  state->num_sms = part->num_sms();
  ASSIGN_OR_RETURN(state->stream, part->create_stream());
  state->part = std::move(part);
  return complete(std::move(state), determinism);
}

}  // namespace

StreamState::StreamState() = default;

StreamState::~StreamState() {
  // Late in a shutdown the driver may be gone: errors are ignored.
  if (part != nullptr && stream != nullptr) cudaStreamSynchronize(stream);  // before its part goes
  if (stream != nullptr) cudaStreamDestroy(stream);
  cudaFree(counters);
}

absl::StatusOr<CudaHandle> create_stream(int index, Determinism determinism) {
  ASSIGN_OR_RETURN(auto state, state_of_gpu(index));
  RETURN_IF_ERROR(to_status(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking),
                            "creation of a stream"));
  return complete(std::move(state), determinism);
}

absl::StatusOr<CudaHandle> create_urgent_stream(int index, Determinism determinism) {
  ASSIGN_OR_RETURN(auto state, state_of_gpu(index));
  int least = 0;
  int greatest = 0;
  RETURN_IF_ERROR(
      to_status(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities of streams"));
  RETURN_IF_ERROR(
      to_status(cudaStreamCreateWithPriority(&state->stream, cudaStreamNonBlocking, greatest),
                "creation of a stream"));
  return complete(std::move(state), determinism);
}

absl::StatusOr<std::pair<CudaHandle, CudaHandle>> create_partition(int index, int num_sms,
                                                                   Determinism determinism) {
  RETURN_IF_ERROR(to_status(cudaSetDevice(index), "GPU selection"));
  ASSIGN_OR_RETURN(GreenContext::Pair parts, GreenContext::split(index, num_sms));
  ASSIGN_OR_RETURN(CudaHandle first, create_on(index, std::move(parts.first), determinism));
  auto second = create_on(index, std::move(parts.second), determinism);
  if (!second.ok()) {
    destroy_stream(first);
    return second.status();
  }
  return std::pair(first, *second);
}

void destroy_stream(CudaHandle stream) { delete &state_of(stream); }

int num_sms(CudaHandle stream) { return state_of(stream).num_sms; }

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

void hold_stream(CudaHandle stream, CudaHandle event) {
  check_cuda(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "wait of a stream");
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
