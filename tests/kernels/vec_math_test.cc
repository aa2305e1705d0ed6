#include "kernels/cpu/vec_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace pbserve::kernels::cpu {
namespace {

float exp1(float x) { return exp(splat(x))[0]; }

TEST(VecMath, ExpIsWithinTwoUlp) {
  double worst = 0;
  for (double at = -87; at < 88.7; at += 0.0007) {
    const auto x = static_cast<float>(at);
    const double expected = std::exp(static_cast<double>(x));
    const double ulp = std::ldexp(1, std::ilogb(expected) - 23);
    worst = std::max(worst, std::abs(exp1(x) - expected) / ulp);
  }
  EXPECT_LT(worst, 2);
}

TEST(VecMath, ExpAtItsEdges) {
  EXPECT_EQ(exp1(0.f), 1.f);
  EXPECT_EQ(exp1(-HUGE_VALF), 0.f);
  EXPECT_EQ(exp1(-87.5f), 0.f);
  EXPECT_EQ(exp1(-1e30f), 0.f);
  EXPECT_EQ(exp1(HUGE_VALF), HUGE_VALF);
  EXPECT_EQ(exp1(1e30f), HUGE_VALF);
  EXPECT_TRUE(std::isnan(exp1(std::nanf(""))));
}

TEST(VecMath, LanesAreIndependent) {
  Vec x = splat(1.f);
  x[3] = -HUGE_VALF;
  x[5] = std::nanf("");
  const Vec y = exp(x);
  for (int i = 0; i < kLanes; ++i) {
    if (i == 5) {
      EXPECT_TRUE(std::isnan(y[i]));
    } else {
      EXPECT_EQ(y[i], i == 3 ? 0.f : exp1(1.f));
    }
  }
}

TEST(VecMath, SplatKeepsTheSignOfZero) { EXPECT_TRUE(std::signbit(splat(-0.f)[0])); }

TEST(VecMath, BF16LoadsAndStoresAsTheScalarFunctions) {
  std::mt19937 random(1);
  for (int round = 0; round < 20'000; ++round) {
    float values[kLanes];
    for (float& value : values) value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (round == 0) values[0] = std::bit_cast<float>(0x7f800001u);
    BF16 stored[kLanes];
    store(stored, load(values));
    float loaded[kLanes];
    store(loaded, load(stored));
    for (int i = 0; i < kLanes; ++i) {
      ASSERT_EQ(stored[i].bits, from_f32<BF16>(values[i]).bits) << values[i];
      ASSERT_EQ(std::bit_cast<uint32_t>(loaded[i]), uint32_t{stored[i].bits} << 16);
    }
  }
}

TEST(VecMath, PartialAccessTouchesOnlyItsLanes) {
  for (int64_t count = 1; count <= kLanes; ++count) {
    const size_t size = static_cast<size_t>(count);
    std::vector<float> from(size, 2.f);  // the address sanitizer sees a read past the end
    std::vector<float> to(size + 1, 7.f);
    const Vec value = load(from.data(), count);
    store(to.data(), value, count);
    for (int64_t i = 0; i < kLanes; ++i) EXPECT_EQ(value[i], i < count ? 2.f : 0.f);
    for (size_t i = 0; i < size; ++i) EXPECT_EQ(to[i], 2.f);
    EXPECT_EQ(to[size], 7.f);
  }
}

TEST(VecMath, HorizontalSumAndMaximum) {
  Vec value = {};
  float expected = 0;
  for (int i = 0; i < kLanes; ++i) {
    value[i] = static_cast<float>(i * i);
    expected += value[i];
  }
  EXPECT_EQ(sum(value), expected);
  EXPECT_EQ(max(value), static_cast<float>((kLanes - 1) * (kLanes - 1)));
  for (int i = 0; i < kLanes; ++i) {
    Vec one = splat(-1.f);
    one[i] = 5.f;
    EXPECT_EQ(max(one), 5.f);
    EXPECT_EQ(sum(one), 5.f - (kLanes - 1));
  }
}

}  // namespace
}  // namespace pbserve::kernels::cpu
