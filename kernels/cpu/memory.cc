// CPU memory straight from the kernel: zeroed, page-aligned, and taken only when touched, so a KV
// pool may be as large as its limit without costing what it does not hold.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "kernels/core/buffer.h"

namespace pbserve::kernels::cpu {

absl::StatusOr<std::byte*> allocate(size_t num_bytes) {
  void* memory =
      mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError("cannot allocate " + std::to_string(num_bytes) +
                                        " bytes of CPU memory: " + strerror(errno));
  }
  // Advice only: 2 MB pages spare the TLB when a step reads all weights.
  madvise(memory, num_bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(memory);
}

void release(std::byte* memory, size_t num_bytes) { munmap(memory, num_bytes); }

}  // namespace pbserve::kernels::cpu
