// The vocabulary of args_check: what is expected of one operand, printed with its name on failure.
#pragma once

#include <initializer_list>

#include "kernels/core/tensor.h"

namespace pbserve::kernels {

inline constexpr size_t kVectorAlignment = 16;  // bytes of the widest load of a GPU thread

struct Operand {
  const char* name;  // "rms_norm: y"
  const Tensor& tensor;
};

// dim(axis) of an operand whose rank is not known to be large enough.
int64_t size_at(Operand operand, int axis);

// Rank and sizes are `dims`, elements are contiguous, data is there unless a size is 0.
void expect_shape(Operand operand, std::initializer_list<int64_t> dims);
void expect_dtype(Operand operand, std::initializer_list<DType> allowed);
void expect_aligned(Operand operand, size_t bytes);

// Activations, weights and caches: bfloat16 or float32.
void expect_float(Operand operand);

// [..., D] of an attention operand: dtype as `like`, 16-byte vectors throughout.
void expect_heads(Operand operand, DType like, std::initializer_list<int64_t> dims);

}  // namespace pbserve::kernels
