// UploadArena: small host arrays on their way to the device: a pinned half that the copy reads and
// a device half that operations read, carved in step. One arena serves one step (or one lane's job)
// at a time; `reset` it when the device is done with the last one.
#pragma once

#include <cstring>
#include <span>
#include <utility>

#include "kernels/core/buffer.h"
#include "kernels/core/workspace.h"

namespace pbserve::engine {

class UploadArena {
 public:
  static absl::StatusOr<UploadArena> create(kernels::Device device, size_t num_bytes);

  void reset() { used_ = 0; }

  // Queues the copy and returns the device view. REQUIRES: it fits.
  template <class T>
  kernels::Tensor put(std::span<const T> values, std::initializer_list<int64_t> dims,
                      const kernels::Stream& stream) {
    const auto [host, device] = take(values.size_bytes());
    std::memcpy(host, values.data(), values.size_bytes());
    kernels::copy_to_device(device, host, values.size_bytes(), stream);
    return kernels::Tensor(device, kernels::kDTypeOf<T>, dims);
  }

  template <class T>
  kernels::Tensor put(const std::vector<T>& values, const kernels::Stream& stream) {
    return put(std::span<const T>(values), {static_cast<int64_t>(values.size())}, stream);
  }

 private:
  UploadArena(kernels::PinnedBuffer host, kernels::DeviceBuffer device)
      : host_(std::move(host)), device_(std::move(device)) {}

  std::pair<std::byte*, std::byte*> take(size_t num_bytes);

  kernels::PinnedBuffer host_;
  kernels::DeviceBuffer device_;
  size_t used_ = 0;
};

}  // namespace pbserve::engine
