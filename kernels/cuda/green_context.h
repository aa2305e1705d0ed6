// Green contexts of the CUDA driver: parts of one GPU's multiprocessors (SMs) with streams of their
// own. They share the memory, the events and the loaded code of the GPU's primary context.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <utility>

#include "kernels/core/status.h"

namespace pbserve::kernels::cuda {

class GreenContext {
 public:
  using Pair = std::pair<std::unique_ptr<GreenContext>, std::unique_ptr<GreenContext>>;

  // The first has `num_sms` SMs, rounded up to what the GPU can part, the second the others.
  // kInvalidArgument: no SM is left for one of them. kUnavailable: the driver has no green
  // contexts, or refuses. REQUIRES: the GPU is the calling thread's.
  static absl::StatusOr<Pair> split(int index, int num_sms);
  // Takes over `handle`, a CUgreenCtx of `num_sms` SMs.
  GreenContext(void* handle, int num_sms) : handle_(handle), num_sms_(num_sms) {}
  ~GreenContext();  // REQUIRES: its streams are gone
  GreenContext(const GreenContext&) = delete;
  GreenContext& operator=(const GreenContext&) = delete;

  int num_sms() const { return num_sms_; }
  absl::StatusOr<cudaStream_t> create_stream() const;

 private:
  void* handle_;  // CUgreenCtx
  int num_sms_;
};

}  // namespace pbserve::kernels::cuda
