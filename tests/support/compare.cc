#include "tests/support/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace pbserve::test {
namespace {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;

bool same_kind(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return true;
}

// How many times the allowed error an element is off; above 1 is a failure.
double excess(double expected, double actual, Tolerance tolerance) {
  if (!same_kind(expected, actual)) return HUGE_VAL;
  if (!std::isfinite(expected)) return 0;
  const double allowed = std::max(tolerance.absolute, tolerance.relative * std::abs(expected));
  const double error = std::abs(expected - actual);
  if (error == 0) return 0;
  return allowed > 0 ? error / allowed : HUGE_VAL;
}

// 1 - cosine of the finite elements; 0 where both vectors are zero.
double angle_defect(std::span<const double> a, std::span<const double> b) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) continue;
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  if (aa == 0 && bb == 0) return 0;
  if (aa == 0 || bb == 0) return 1;
  return 1 - ab / std::sqrt(aa * bb);
}

}  // namespace

Tolerance tolerance_of(kernels::DType stored, int64_t num_terms) {
  const double store_rounding = stored == kernels::DType::kBF16 ? std::ldexp(1, -8) : 0;
  return {.absolute = std::ldexp(static_cast<double>(num_terms) + 4, -23),
          .relative = store_rounding + std::ldexp(1, -21)};
}

AssertionResult all_close(std::span<const double> expected, std::span<const double> actual,
                          Tolerance tolerance) {
  if (expected.size() != actual.size()) {
    return AssertionFailure() << expected.size() << " values expected, got " << actual.size();
  }
  size_t num_bad = 0;
  size_t worst_idx = 0;
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double off = excess(expected[i], actual[i], tolerance);
    if (off > 1) ++num_bad;
    if (off > worst) {
      worst = off;
      worst_idx = i;
    }
  }
  if (num_bad > 0) {
    return AssertionFailure() << num_bad << " of " << expected.size() << " values differ; worst at "
                              << worst_idx << ": expected " << expected[worst_idx] << ", got "
                              << actual[worst_idx];
  }
  const double bound = tolerance.relative + tolerance.absolute;
  const double defect = angle_defect(expected, actual);
  if (defect > bound * bound) {
    return AssertionFailure() << "directions differ: 1 - cosine = " << defect << ", allowed "
                              << bound * bound;
  }
  return AssertionSuccess();
}

AssertionResult same_bits(const kernels::Tensor& a, const kernels::Tensor& b) {
  if (a.dtype != b.dtype || a.rank != b.rank || a.shape != b.shape) {
    return AssertionFailure() << "tensors differ in shape or dtype";
  }
  const size_t unit = kernels::size_of(a.dtype);
  const auto* left = static_cast<const std::byte*>(a.data);
  const auto* right = static_cast<const std::byte*>(b.data);
  for (int64_t i = 0; i < a.numel(); ++i) {
    const size_t at = static_cast<size_t>(i) * unit;
    if (std::memcmp(left + at, right + at, unit) != 0) {
      return AssertionFailure() << "bits differ first at element " << i << " of " << a.numel();
    }
  }
  return AssertionSuccess();
}

}  // namespace pbserve::test
