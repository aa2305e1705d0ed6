// Tensor: a view of memory somebody else owns. Trivially copyable, never allocates.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "kernels/core/check.h"
#include "kernels/core/dtype.h"

namespace pbserve::kernels {

struct Tensor {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> stride{};  // in elements

  Tensor() = default;

  // A contiguous view, last dimension fastest.
  Tensor(void* memory, DType type, std::initializer_list<int64_t> dims)
      : data(memory), dtype(type), rank(static_cast<int>(dims.size())) {
    check(rank <= kMaxRank, "tensor rank above 4");
    int axis = 0;
    for (int64_t dim : dims) shape[axis++] = dim;
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; --i) {
      stride[i] = step;
      step *= shape[i];
    }
  }

  // An absent optional operand (no bias, no residual) is an empty tensor.
  bool empty() const { return data == nullptr; }
  int64_t dim(int axis) const { return shape[axis]; }

  int64_t numel() const {
    int64_t count = rank == 0 ? 0 : 1;
    for (int i = 0; i < rank; ++i) count *= shape[i];
    return count;
  }

  bool contiguous() const {
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (shape[i] != 1 && stride[i] != step) return false;
      step *= shape[i];
    }
    return true;
  }

  template <Storable T>
  T* as(Location where = Location::current()) const {
    check(kDTypeOf<T> == dtype, "tensor read as another dtype", where);
    return static_cast<T*>(data);
  }

  // Rows [begin, end) of the first dimension; half-open.
  Tensor rows(int64_t begin, int64_t end) const {
    check(0 <= begin && begin <= end && end <= shape[0], "tensor rows out of range");
    Tensor view = *this;
    view.data = static_cast<std::byte*>(data) + begin * stride[0] * size_of(dtype);
    view.shape[0] = end - begin;
    return view;
  }

  // One index of the first dimension; the rank drops by one.
  Tensor at(int64_t index) const {
    check(0 <= index && index < shape[0] && rank > 1, "tensor index out of range");
    Tensor view;
    view.data = static_cast<std::byte*>(data) + index * stride[0] * size_of(dtype);
    view.dtype = dtype;
    view.rank = rank - 1;
    for (int i = 0; i + 1 < rank; ++i) {
      view.shape[i] = shape[i + 1];
      view.stride[i] = stride[i + 1];
    }
    return view;
  }

  // The same memory under another shape. REQUIRES: contiguous, equal number of elements.
  Tensor reshape(std::initializer_list<int64_t> dims) const {
    Tensor view(data, dtype, dims);
    check(contiguous(), "reshape of a strided tensor");
    check_eq(view.numel(), numel(), "reshape changes the number of elements");
    return view;
  }
};

}  // namespace pbserve::kernels
