// DeviceBuffer: the owner of bytes on one device. Everything else is a view of one of these.
// PinnedBuffer: host bytes the device copies from and to without staging.
#pragma once

#include <cstddef>

#include "kernels/core/device.h"
#include "kernels/core/status.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // kResourceExhausted names the bytes asked for and, on a GPU, the bytes free. CPU memory comes
  // zeroed, 64-byte aligned, and is backed by the system on first touch.
  static absl::StatusOr<DeviceBuffer> create(Device device, size_t num_bytes);
  DeviceBuffer(DeviceBuffer&&) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&&) noexcept;
  ~DeviceBuffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Device device_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  static absl::StatusOr<PinnedBuffer> create(Device device, size_t num_bytes);
  PinnedBuffer(PinnedBuffer&&) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&&) noexcept;
  ~PinnedBuffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Device device_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Ordered in `stream`; on the CPU a memcpy. Host memory must stay valid until the copy is reached.
void copy_to_device(void* device, const void* host, size_t num_bytes, const Stream& stream);
void copy_to_host(void* host, const void* device, size_t num_bytes, const Stream& stream);
void fill_zero(void* device, size_t num_bytes, const Stream& stream);

// What the backends provide; only buffer.cc calls it. num_bytes > 0.
namespace cpu {
absl::StatusOr<std::byte*> allocate(size_t num_bytes);
void release(std::byte* memory, size_t num_bytes);
}  // namespace cpu
namespace cuda {
absl::StatusOr<std::byte*> allocate(int index, size_t num_bytes);
void release(int index, std::byte* memory);
absl::StatusOr<std::byte*> allocate_pinned(size_t num_bytes);
void release_pinned(std::byte* memory);
void copy_to_device(void* device, const void* host, size_t num_bytes, CudaHandle stream);
void copy_to_host(void* host, const void* device, size_t num_bytes, CudaHandle stream);
void fill_zero(void* device, size_t num_bytes, CudaHandle stream);
}  // namespace cuda

}  // namespace pbserve::kernels
