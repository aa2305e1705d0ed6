// What a CudaHandle of a Stream points to: the CUDA stream and what belongs to it for life.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "kernels/core/stream.h"

namespace pbserve::kernels::cuda {

class GreenContext;  // a part of a GPU (green_context.h)
class Matmul;        // cuBLASLt: handle, workspace, chosen algorithms (matmul.h)

struct StreamState {
  cudaStream_t stream = nullptr;
  int device_index = 0;
  int num_sms = 0;  // that its kernels run on
  std::unique_ptr<Matmul> matmul;
  // On the device, zero between launches; a kernel that counts sets its counters back.
  int32_t* counters = nullptr;  // [kNumCounters]
  static constexpr int kNumCounters = 16;
  std::unique_ptr<GreenContext> part;  // null: the whole GPU

  StreamState();
  ~StreamState();
  StreamState(const StreamState&) = delete;
  StreamState& operator=(const StreamState&) = delete;
};

inline StreamState& state_of(CudaHandle handle) { return *static_cast<StreamState*>(handle); }
inline cudaStream_t stream_of(CudaHandle handle) { return state_of(handle).stream; }

}  // namespace pbserve::kernels::cuda
