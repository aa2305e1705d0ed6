// Device memory for bench_ops: random values and page tables, owned here until dropped.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/dtype.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

class OpInputs {
 public:
  explicit OpInputs(const Stream& stream);  // outlives the inputs

  Tensor take(DType dtype, std::initializer_list<int64_t> dims);  // not set
  // bf16, standard normal. No two tensors begin with the same values.
  Tensor take_noise(std::initializer_list<int64_t> dims);
  void fill_noise(const Tensor& tensor);                          // bf16
  Tensor take_page_table(int64_t num_rows, int64_t num_columns);  // int32: all pages, shuffled
  template <class T>
  Tensor take_all(const std::vector<T>& values, std::initializer_list<int64_t> dims) {
    const Tensor tensor = take(kDTypeOf<T>, dims);
    copy_to_device(tensor.data, values.data(), values.size() * sizeof(T), stream_);
    stream_.synchronize();
    return tensor;
  }

  void drop(size_t count) { memory_.resize(memory_.size() - count); }  // the last taken
  void drop_all() { memory_.clear(); }

 private:
  const Stream& stream_;
  // An odd length: repeats of it start at other elements of a head.
  std::vector<BF16> noise_ = std::vector<BF16>((1 << 22) + 1);
  int64_t num_noises_ = 0;
  std::vector<DeviceBuffer> memory_;
};

}  // namespace pbserve::kernels
