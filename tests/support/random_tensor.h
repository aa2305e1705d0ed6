// Tensors that own their memory, on any backend, filled from lists or at random.
#pragma once

#include <cmath>
#include <initializer_list>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/tensor.h"

namespace pbserve::test {

// A tensor in host memory. Floating-point values are read and written as double.
class HostTensor {
 public:
  HostTensor(kernels::DType dtype, std::initializer_list<int64_t> dims)
      : view_(nullptr, dtype, dims), bytes_(num_bytes()) {
    view_.data = bytes_.data();
  }
  HostTensor(const HostTensor& other) : view_(other.view_), bytes_(other.bytes_) {
    view_.data = bytes_.data();
  }
  HostTensor& operator=(const HostTensor&) = delete;

  const kernels::Tensor& view() const { return view_; }
  size_t num_bytes() const {
    return static_cast<size_t>(view_.numel()) * kernels::size_of(view_.dtype);
  }

  void set(int64_t i, double value) {
    const auto rounded = static_cast<float>(value);
    if (view_.dtype == kernels::DType::kF32) {
      view_.as<float>()[i] = rounded;
    } else {
      view_.as<kernels::BF16>()[i] = kernels::from_f32<kernels::BF16>(rounded);
    }
  }

  std::vector<double> values() const {
    std::vector<double> list(static_cast<size_t>(view_.numel()));
    for (size_t i = 0; i < list.size(); ++i) {
      list[i] = view_.dtype == kernels::DType::kF32 ? view_.as<float>()[i]
                                                    : kernels::to_f32(view_.as<kernels::BF16>()[i]);
    }
    return list;
  }

 private:
  kernels::Tensor view_;
  std::vector<std::byte> bytes_;
};

inline HostTensor filled(kernels::DType dtype, std::initializer_list<int64_t> dims, double value) {
  HostTensor tensor(dtype, dims);
  for (int64_t i = 0; i < tensor.view().numel(); ++i) tensor.set(i, value);
  return tensor;
}

// What a test puts where nothing may be read, or left unwritten.
inline HostTensor poisoned(kernels::DType dtype, std::initializer_list<int64_t> dims) {
  return filled(dtype, dims, std::numeric_limits<double>::quiet_NaN());
}

// Standard normal values, rounded to the dtype.
inline HostTensor random_tensor(kernels::DType dtype, std::initializer_list<int64_t> dims,
                                std::mt19937& random) {
  std::normal_distribution<double> normal;
  HostTensor tensor(dtype, dims);
  for (int64_t i = 0; i < tensor.view().numel(); ++i) tensor.set(i, normal(random));
  return tensor;
}

template <class T>
HostTensor tensor_of(const std::vector<T>& values, std::initializer_list<int64_t> dims) {
  HostTensor tensor(kernels::kDTypeOf<T>, dims);
  check_eq(static_cast<size_t>(tensor.view().numel()), values.size(), "values of a test tensor");
  std::copy(values.begin(), values.end(), tensor.view().template as<T>());
  return tensor;
}

template <class T>
HostTensor tensor_of(const std::vector<T>& values) {
  return tensor_of(values, {static_cast<int64_t>(values.size())});
}

// A copy on the stream's device.
class DeviceTensor {
 public:
  DeviceTensor(const HostTensor& from, const kernels::Stream& stream)
      : host_(from), stream_(&stream), view_(from.view()) {
    auto buffer = kernels::DeviceBuffer::create(stream.device(), from.num_bytes());
    check(buffer.ok(), buffer.status().ToString());
    buffer_ = *std::move(buffer);
    view_.data = buffer_.data();
    kernels::copy_to_device(buffer_.data(), from.view().data, from.num_bytes(), stream);
  }

  const kernels::Tensor& view() const { return view_; }

  // Waits for the stream.
  HostTensor read() const {
    HostTensor result(host_);
    kernels::copy_to_host(result.view().data, buffer_.data(), result.num_bytes(), *stream_);
    stream_->synchronize();
    return result;
  }

 private:
  HostTensor host_;
  const kernels::Stream* stream_;
  kernels::DeviceBuffer buffer_;
  kernels::Tensor view_;
};

}  // namespace pbserve::test
