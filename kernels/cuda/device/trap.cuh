// What the CPU answers with check() stops the GPU: the next synchronisation of the host reports an
// illegal instruction and the process dies.
#pragma once

namespace pbserve::kernels::cuda {

__device__ __forceinline__ void trap_unless(bool ok) {
  if (!ok) __trap();
}

}  // namespace pbserve::kernels::cuda
