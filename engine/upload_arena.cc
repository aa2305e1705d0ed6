#include "engine/upload_arena.h"

namespace pbserve::engine {

absl::StatusOr<UploadArena> UploadArena::create(kernels::Device device, size_t num_bytes) {
  ASSIGN_OR_RETURN(auto host, kernels::PinnedBuffer::create(device, num_bytes));
  ASSIGN_OR_RETURN(auto memory, kernels::DeviceBuffer::create(device, num_bytes));
  return UploadArena(std::move(host), std::move(memory));
}

std::pair<std::byte*, std::byte*> UploadArena::take(size_t num_bytes) {
  const size_t begin = used_;
  used_ += kernels::align_up(num_bytes, kernels::Workspace::kAlignment);
  check(used_ <= host_.size(), "upload arena is too small for its step");
  return {host_.data() + begin, device_.data() + begin};
}

}  // namespace pbserve::engine
