// The stages of a pipeline in shared memory, used in turn.
#pragma once

#include <cstdint>

namespace pbserve::kernels::cuda {

// Where a thread stands in the ring of stages.
template <int kNumStages>
class StageRing {
 public:
  __device__ int stage() const { return stage_; }
  __device__ uint32_t parity() const { return parity_; }
  __device__ void advance() {
    if (++stage_ < kNumStages) return;
    stage_ = 0;
    parity_ ^= 1;
  }

 private:
  int stage_ = 0;
  uint32_t parity_ = 0;
};

}  // namespace pbserve::kernels::cuda
