#include "kernels/ops/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/reference/ops_ref.h"
#include "tests/support/backends.h"
#include "tests/support/compare.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using kernels::LinearWeight;
using kernels::Stream;
using kernels::Tensor;

class SwigluTest : public ::testing::TestWithParam<Backend> {
 protected:
  // Products of about 1 with rows of standard normal values.
  HostTensor random_weight(DType dtype, int64_t num_out, int64_t num_in) {
    std::normal_distribution<double> normal(0, 1 / std::sqrt(static_cast<double>(num_in)));
    HostTensor w(dtype, {num_out, num_in});
    for (int64_t i = 0; i < w.view().numel(); ++i) w.set(i, normal(random_));
    return w;
  }

  // x and y begin `offset` elements behind the beginning of their memory.
  HostTensor run(const HostTensor& x, const HostTensor& w, const Stream& stream,
                 int64_t offset = 0) {
    const DType dtype = x.view().dtype;
    const int64_t num_out = w.view().dim(0), num_in = w.view().dim(1);
    const int64_t rows = x.view().numel() / num_in, width = num_out / 2;
    HostTensor shifted_x(dtype, {rows * num_in + offset});
    std::copy_n(static_cast<const std::byte*>(x.view().data), x.num_bytes(),
                static_cast<std::byte*>(shifted_x.view().data) + offset * size_of(dtype));
    const auto behind = [&](const Tensor& memory, int64_t columns) {
      auto* data = static_cast<std::byte*>(memory.data) + offset * size_of(dtype);
      return Tensor(data, dtype, {rows, columns});
    };
    const int64_t numel = kernels::packed_weight_numel(stream.device(), num_out, num_in);
    const DeviceTensor packed(HostTensor(dtype, {numel}), stream);
    const LinearWeight weight{packed.view(), num_out, num_in};
    pack_weight({.weight = weight, .rows = w.view(), .row_begin = 0}, stream);
    const DeviceTensor device_x(shifted_x, stream);
    const DeviceTensor scratch(poisoned(dtype, {rows, num_out}), stream);
    const DeviceTensor y(poisoned(dtype, {rows * width + offset}), stream);
    swiglu({.y = behind(y.view(), width),
            .x = behind(device_x.view(), num_in),
            .gate_up = weight,
            .scratch = scratch.view()},
           stream);
    const HostTensor written = y.read();
    HostTensor result(dtype, {rows, width});
    std::memcpy(result.view().data, behind(written.view(), width).data, result.num_bytes());
    return result;
  }

  std::mt19937 random_{15};
  Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, SwigluTest, ::testing::ValuesIn(backends()), backend_name);

struct Shape {
  int64_t rows, width, num_in;
};

// A GPU works the first six in two steps and the others in one: whole tiles, and rows, columns and
// steps that fill the last one in part.
constexpr Shape kShapes[] = {{1, 1, 1},      {3, 17, 5},      {67, 128, 64},   {256, 12, 64},
                             {256, 16, 12},  {256, 128, 64},  {257, 8, 8},     {511, 136, 72},
                             {513, 320, 96}, {2304, 384, 40}, {640, 136, 1032}};

// Both factors may be rounded before they are joined, and the result is: each moves it by at most
// half a unit in the last place of gate * up, since silu rises by at most 1.1.
void expect_joined(const std::vector<double>& products, const Shape& s, DType dtype,
                   const std::vector<double>& y) {
  const double rounding = dtype == DType::kBF16 ? 0x1p-8 : 0;
  const double of_sums = 16 * tolerance_of(DType::kF32, s.num_in).absolute;
  const auto joined = reference::silu_mul_ref(products, s.width);
  ASSERT_EQ(y.size(), joined.size());
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t at = i / s.width * 2 * s.width + i % s.width;
    const double factors = std::abs(products[at] * products[at + s.width]);
    ASSERT_NEAR(y[i], joined[i], 3.2 * rounding * factors + of_sums) << i;
  }
}

TEST_P(SwigluTest, MatchesTheReference) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(testing::Message()
                   << s.rows << " x " << s.width << " x " << s.num_in << " " << name_of(dtype));
      const HostTensor x = random_tensor(dtype, {s.rows, s.num_in}, random_);
      const HostTensor w = random_weight(dtype, 2 * s.width, s.num_in);
      const auto products = reference::linear_ref(x.values(), w.values(), {}, s.num_in);
      expect_joined(products, s, dtype, run(x, w, stream_).values());
    }
  }
}

// Many tiles for every multiprocessor, in several groups of rows: the steps of K go through the
// stages again and again.
TEST_P(SwigluTest, ManyTilesMatchTheirRowsAlone) {
  if (!stream_.is_cuda()) GTEST_SKIP() << "the CPU works row by row";
  constexpr int64_t kRows = 5000, kWidth = 2064, kNumIn = 328, kSome = 1024;
  const HostTensor x = random_tensor(DType::kBF16, {kRows, kNumIn}, random_);
  const HostTensor w = random_weight(DType::kBF16, 2 * kWidth, kNumIn);
  const HostTensor all = run(x, w, stream_);
  for (const int64_t begin : {int64_t{0}, kSome, 2 * kSome, 3 * kSome, kRows - kSome}) {
    HostTensor some(DType::kBF16, {kSome, kNumIn});
    std::memcpy(some.view().data, x.view().rows(begin, begin + kSome).data, some.num_bytes());
    EXPECT_TRUE(same_bits(run(some, w, stream_).view(), all.view().rows(begin, begin + kSome)));
  }
  for (const int64_t row : {int64_t{0}, int64_t{2100}, kRows - 1}) {  // of every group
    HostTensor one(DType::kBF16, {1, kNumIn});
    std::memcpy(one.view().data, x.view().rows(row, row + 1).data, one.num_bytes());
    const auto products = reference::linear_ref(one.values(), w.values(), {}, kNumIn);
    const auto values = all.values();
    const auto begin = values.begin() + row * kWidth;
    expect_joined(products, {1, kWidth, kNumIn}, DType::kBF16, {begin, begin + kWidth});
  }
}

// Views that begin between two vectors.
TEST_P(SwigluTest, OddAddressesMatchTheReference) {
  constexpr Shape kShape{300, 16, 24};
  const HostTensor x = random_tensor(DType::kBF16, {kShape.rows * kShape.num_in}, random_);
  const HostTensor w = random_weight(DType::kBF16, 2 * kShape.width, kShape.num_in);
  const auto products = reference::linear_ref(x.values(), w.values(), {}, kShape.num_in);
  expect_joined(products, kShape, DType::kBF16, run(x, w, stream_, 1).values());
}

TEST_P(SwigluTest, WithDeterminismARowDoesNotDependOnItsCompany) {
  auto stream = Stream::create(GetParam().device, 2, kernels::Determinism::kOn);
  ASSERT_TRUE(stream.ok()) << stream.status();
  const HostTensor x = random_tensor(DType::kBF16, {1200, 136}, random_);
  const HostTensor w = random_weight(DType::kBF16, 2 * 72, 136);
  const HostTensor all = run(x, w, *stream);
  for (const int64_t size : {1, 7, 300, 1100}) {
    HostTensor some(DType::kBF16, {size, 136});
    std::memcpy(some.view().data, x.view().data, some.num_bytes());
    EXPECT_TRUE(same_bits(run(some, w, *stream).view(), all.view().rows(0, size))) << size;
  }
}

TEST_P(SwigluTest, PoisonStaysInItsRowAndLargeGatesSaturate) {
  HostTensor x = random_tensor(DType::kBF16, {1100, 64}, random_);
  x.set(7 * 64 + 5, std::numeric_limits<double>::quiet_NaN());
  for (int64_t i = 0; i < 64; ++i) x.set(8 * 64 + i, 1000), x.set(9 * 64 + i, -1000);
  const HostTensor w = filled(DType::kBF16, {2 * 24, 64}, 1);
  const std::vector<double> y = run(x, w, stream_).values();
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / 24;
    ASSERT_EQ(std::isnan(y[i]), row == 7) << i;
    const double expected = row == 8 ? 64000.0 * 64000 : 0;
    if (row == 8 || row == 9) {
      ASSERT_NEAR(y[i], expected, expected / 128) << i;
    }
  }
}

TEST_P(SwigluTest, NoRowsIsNoWork) {
  const HostTensor w = random_weight(DType::kBF16, 16, 8);
  EXPECT_TRUE(run(HostTensor(DType::kBF16, {0, 8}), w, stream_).values().empty());
}

}  // namespace
}  // namespace pbserve::test
