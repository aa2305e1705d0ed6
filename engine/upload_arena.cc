#include "engine/upload_arena.h"

namespace pbserve::engine {

absl::StatusOr<UploadArena> UploadArena::create(kernels::Tensor device,
                                                const kernels::Stream& stream) {
  ASSIGN_OR_RETURN(auto host, kernels::PinnedBuffer::create(stream.device(),
                                                            static_cast<size_t>(device.numel())));
  return UploadArena(device, std::move(host), kernels::Event(stream));
}

void UploadArena::reset() {
  copied_.wait();
  used_ = 0;
  uploaded_ = 0;
}

void UploadArena::upload(const kernels::Stream& stream) {
  kernels::copy_to_device(static_cast<std::byte*>(device_.data) + uploaded_,
                          host_.data() + uploaded_, used_ - uploaded_, stream);
  copied_.record(stream);
  uploaded_ = used_;
}

std::pair<std::byte*, std::byte*> UploadArena::take(size_t num_bytes) {
  const size_t begin = used_;
  used_ += kernels::align_up(num_bytes, kernels::Workspace::kAlignment);
  check(used_ <= host_.size(), "upload arena is too small for its step");
  return {host_.data() + begin, static_cast<std::byte*>(device_.data) + begin};
}

}  // namespace pbserve::engine
