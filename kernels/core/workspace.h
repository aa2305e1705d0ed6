// Workspace: one start-up allocation carved by a bump pointer. Run with no memory it measures; run
// again over a buffer it hands out. The same code does both, so the sizes cannot differ.
#pragma once

#include <cstddef>
#include <initializer_list>

#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

class Workspace {
 public:
  static constexpr size_t kAlignment = 256;  // TMA and vector loads want 128; one line to spare

  Workspace() = default;  // measuring
  Workspace(std::byte* memory, size_t num_bytes) : memory_(memory), capacity_(num_bytes) {}

  bool measuring() const { return memory_ == nullptr; }
  size_t used_bytes() const { return used_; }

  // While measuring the tensor has a shape but no data.
  Tensor take(DType dtype, std::initializer_list<int64_t> dims) {
    Tensor tensor(nullptr, dtype, dims);
    const size_t bytes = align_up(static_cast<size_t>(tensor.numel()) * size_of(dtype), kAlignment);
    if (!measuring()) {
      check(used_ + bytes <= capacity_, "workspace smaller than its own measurement");
      tensor.data = memory_ + used_;
    }
    used_ += bytes;
    return tensor;
  }

 private:
  std::byte* memory_ = nullptr;
  size_t capacity_ = 0;
  size_t used_ = 0;
};

}  // namespace pbserve::kernels
