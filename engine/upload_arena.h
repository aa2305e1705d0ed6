// UploadArena: small host arrays on their way to the device: a pinned half that the copy reads and
// a device half that operations read, carved alike. One arena serves one step, or one lane's job,
// at a time. Arrays put in the same order with the same sizes lie where they lay before: a recorded
// graph finds them there.
#pragma once

#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/workspace.h"

namespace pbserve::engine {

class UploadArena {
 public:
  // `device` [bytes] uint8 outlives the arena. Arenas may share it if their uploads and the
  // operations that read them take turns on one stream.
  static absl::StatusOr<UploadArena> create(kernels::Tensor device, const kernels::Stream& stream);

  // Waits until the uploads so far have left the pinned half.
  void reset();

  // Keeps a copy for the next upload; returns where the device will find it. REQUIRES: it fits.
  template <class T>
  kernels::Tensor put(std::span<const T> values, std::initializer_list<int64_t> dims) {
    const auto [host, device] = take(values.size_bytes());
    std::memcpy(host, values.data(), values.size_bytes());
    return kernels::Tensor(device, kernels::kDTypeOf<T>, dims);
  }

  template <class T>
  kernels::Tensor put(const std::vector<T>& values) {
    return put(std::span<const T>(values), {static_cast<int64_t>(values.size())});
  }

  // Queues one copy of all that was put since the last one.
  void upload(const kernels::Stream& stream);

 private:
  UploadArena(kernels::Tensor device, kernels::PinnedBuffer host, kernels::Event copied)
      : device_(device), host_(std::move(host)), copied_(std::move(copied)) {}

  std::pair<std::byte*, std::byte*> take(size_t num_bytes);

  kernels::Tensor device_;
  kernels::PinnedBuffer host_;
  kernels::Event copied_;
  size_t used_ = 0;
  size_t uploaded_ = 0;
};

}  // namespace pbserve::engine
