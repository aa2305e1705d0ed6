// Programmatic dependent launch (PTX ISA, griddepcontrol): launch_dependent.h starts such kernels.
#pragma once

namespace pbserve::kernels::cuda {

// Returns once the kernels ahead in the stream are complete and what they wrote is seen; at once in
// a kernel that was launched as usual.
__device__ inline void wait_for_earlier_kernels() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// The next kernel's blocks may start, as far as there is room, once all blocks of this one have
// called it or are done. A hint alone: that kernel waits for all of this one.
__device__ inline void let_next_kernel_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace pbserve::kernels::cuda
