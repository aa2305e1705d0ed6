// Comparison of a result with the oracle: same NaN and infinity places, then each element within an
// absolute or a relative bound, then the direction as a whole (a small systematic error passes an
// element-wise bound and is caught by the cosine).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <span>

#include "kernels/core/tensor.h"

namespace pbserve::test {

struct Tolerance {
  double absolute;
  double relative;
};

// For values of order 1 that are sums of `num_terms` float32 products and stored as `stored`: one
// rounding of the store, and num_terms roundings of the sum at worst.
Tolerance tolerance_of(kernels::DType stored, int64_t num_terms);

// On failure prints the number of bad elements, and the worst one with both values.
::testing::AssertionResult all_close(std::span<const double> expected,
                                     std::span<const double> actual, Tolerance tolerance);

// Bytes of two host tensors of the same shape and dtype; prints the first difference.
::testing::AssertionResult same_bits(const kernels::Tensor& a, const kernels::Tensor& b);

}  // namespace pbserve::test
