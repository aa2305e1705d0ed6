// The comparator itself: one that accepts everything is the worst bug of a test suite.
#include "tests/support/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace pbserve::test {
namespace {

const double kNan = std::nan("");
constexpr Tolerance kLoose{.absolute = 1e-3, .relative = 1e-2};

TEST(AllClose, AcceptsWithinEitherBound) {
  const std::vector<double> expected = {0, 100, -5, kNan, HUGE_VAL};
  const std::vector<double> actual = {0.0009, 100.9, -5.04, kNan, HUGE_VAL};
  EXPECT_TRUE(all_close(expected, actual, kLoose));
}

TEST(AllClose, RefusesOneBadElementAndNamesIt) {
  const std::vector<double> expected = {1, 2, 3, 4};
  const std::vector<double> actual = {1, 2.0400390625, 3, 3.95};
  const auto result = all_close(expected, actual, kLoose);
  EXPECT_FALSE(result);
  const std::string message = result.message();
  EXPECT_NE(message.find("2 of 4 values differ; worst at 1: expected 2, got 2.0400390625"),
            std::string::npos)
      << message;
}

TEST(AllClose, RefusesMisplacedNanAndInfinity) {
  const auto differs = [&](double a, double b) {
    return !all_close(std::vector<double>{1, a}, std::vector<double>{1, b}, kLoose);
  };
  EXPECT_TRUE(differs(2, kNan));
  EXPECT_TRUE(differs(kNan, 2));
  EXPECT_TRUE(differs(2, HUGE_VAL));
  EXPECT_TRUE(differs(HUGE_VAL, -HUGE_VAL));
  EXPECT_TRUE(differs(HUGE_VAL, kNan));
  EXPECT_FALSE(differs(2, 2));
}

TEST(AllClose, RefusesOtherLengths) {
  EXPECT_FALSE(all_close(std::vector<double>{1, 2}, std::vector<double>{1}, kLoose));
}

TEST(AllClose, RefusesSystematicErrorWithinTheElementBound) {
  std::vector<double> expected;
  std::vector<double> actual;
  for (int i = 0; i < 100; ++i) {  // small elements rotated by 45 degrees, each within 1e-3
    expected.push_back(i % 2 == 0 ? 5e-4 : 0);
    actual.push_back(5e-4);
  }
  const auto result = all_close(expected, actual, kLoose);
  EXPECT_FALSE(result);
  EXPECT_NE(std::string(result.message()).find("directions differ"), std::string::npos);
}

TEST(AllClose, ZeroToleranceMeansEqual) {
  const std::vector<double> expected = {1, 0};
  EXPECT_TRUE(all_close(expected, expected, {}));
  EXPECT_FALSE(all_close(expected, std::vector<double>{1, 1e-300}, {}));
}

TEST(ToleranceOf, GrowsWithTheSumAndTheStore) {
  using kernels::DType;
  EXPECT_LT(tolerance_of(DType::kF32, 1).absolute, tolerance_of(DType::kF32, 1000).absolute);
  EXPECT_LT(tolerance_of(DType::kF32, 1).relative, 1e-6);
  EXPECT_GE(tolerance_of(DType::kBF16, 1).relative, 1. / 256);
  EXPECT_LT(tolerance_of(DType::kBF16, 1).relative, 1. / 128);
}

TEST(SameBits, SeesTheSignOfZero) {
  float a[] = {1.f, 0.f};
  float b[] = {1.f, -0.f};
  const kernels::Tensor left(a, kernels::DType::kF32, {2});
  const kernels::Tensor right(b, kernels::DType::kF32, {2});
  EXPECT_TRUE(same_bits(left, left));
  EXPECT_FALSE(same_bits(left, right));
  EXPECT_FALSE(same_bits(left, left.rows(0, 1)));
}

}  // namespace
}  // namespace pbserve::test
