#include "kernels/core/buffer.h"

#include <cstring>
#include <utility>

namespace pbserve::kernels {

absl::StatusOr<DeviceBuffer> DeviceBuffer::create(Device device, size_t num_bytes) {
  DeviceBuffer buffer;
  buffer.device_ = device;
  if (num_bytes == 0) return buffer;
  ASSIGN_OR_RETURN(buffer.data_, device.kind == DeviceKind::kCuda
                                     ? cuda::allocate(device.index, num_bytes)
                                     : cpu::allocate(num_bytes));
  buffer.size_ = num_bytes;
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ == nullptr) return;
  if (device_.kind == DeviceKind::kCuda) {
    cuda::release(device_.index, data_);
  } else {
    cpu::release(data_, size_);
  }
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::create(Device device, size_t num_bytes) {
  PinnedBuffer buffer;
  buffer.device_ = device;
  if (num_bytes == 0) return buffer;
  ASSIGN_OR_RETURN(buffer.data_, device.kind == DeviceKind::kCuda ? cuda::allocate_pinned(num_bytes)
                                                                  : cpu::allocate(num_bytes));
  buffer.size_ = num_bytes;
  return buffer;
}

PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ == nullptr) return;
  if (device_.kind == DeviceKind::kCuda) {
    cuda::release_pinned(data_);
  } else {
    cpu::release(data_, size_);
  }
}

void copy_to_device(void* device, const void* host, size_t num_bytes, const Stream& stream) {
  if (num_bytes == 0) return;
  if (stream.is_cuda()) {
    cuda::copy_to_device(device, host, num_bytes, stream.handle());
  } else {
    std::memcpy(device, host, num_bytes);
  }
}

void copy_to_host(void* host, const void* device, size_t num_bytes, const Stream& stream) {
  if (num_bytes == 0) return;
  if (stream.is_cuda()) {
    cuda::copy_to_host(host, device, num_bytes, stream.handle());
  } else {
    std::memcpy(host, device, num_bytes);
  }
}

void fill_zero(void* device, size_t num_bytes, const Stream& stream) {
  if (num_bytes == 0) return;
  if (stream.is_cuda()) {
    cuda::fill_zero(device, num_bytes, stream.handle());
  } else {
    std::memset(device, 0, num_bytes);
  }
}

}  // namespace pbserve::kernels
