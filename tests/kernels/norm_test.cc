#include "kernels/ops/norm.h"

#include <gtest/gtest.h>

#include <optional>

#include "tests/reference/ops_ref.h"
#include "tests/support/backends.h"
#include "tests/support/compare.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::Tensor;

struct Result {
  HostTensor y;
  HostTensor residual;
};

Result run(const HostTensor* x, const HostTensor& residual, const HostTensor& weight, DType y_type,
           float eps, const Stream& stream) {
  const DeviceTensor sum(residual, stream);
  const DeviceTensor scale(weight, stream);
  const DeviceTensor y(poisoned(y_type, {residual.view().dim(0), residual.view().dim(1)}), stream);
  std::optional<DeviceTensor> addend;
  if (x != nullptr) addend.emplace(*x, stream);
  rms_norm({.y = y.view(),
            .x = addend ? addend->view() : Tensor(),
            .weight = scale.view(),
            .residual = sum.view(),
            .eps = eps},
           stream);
  return {.y = y.read(), .residual = sum.read()};
}

class NormTest : public ::testing::TestWithParam<Backend> {
 protected:
  std::mt19937 random_{12};
  Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, NormTest, ::testing::ValuesIn(backends()), backend_name);

TEST_P(NormTest, AddsThenNorms) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const auto& [rows, width] : {std::pair<int64_t, int64_t>(1, 1),
                                      {3, 7},
                                      {2, 64},
                                      {5, 384},
                                      {101, 97},
                                      {1, 8192},
                                      {2, 20'000},
                                      {700, 48}}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << width << " " << name_of(dtype));
      const HostTensor x = random_tensor(dtype, {rows, width}, random_);
      const HostTensor residual = random_tensor(DType::kF32, {rows, width}, random_);
      const HostTensor weight = random_tensor(DType::kF32, {width}, random_);
      const Result got = run(&x, residual, weight, dtype, 1e-5f, stream_);

      std::vector<double> sum = residual.values();
      const std::vector<double> addend = x.values();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += addend[i];
      EXPECT_TRUE(all_close(sum, got.residual.values(), tolerance_of(DType::kF32, 1)));
      Tolerance tolerance = tolerance_of(dtype, 16);
      tolerance.relative += 1e-6;
      EXPECT_TRUE(all_close(reference::rms_norm_ref(sum, weight.values(), 1e-5), got.y.values(),
                            tolerance));
    }
  }
}

TEST_P(NormTest, WithoutXTheResidualStaysAsItIs) {
  const HostTensor residual = random_tensor(DType::kF32, {4, 100}, random_);
  const HostTensor weight = random_tensor(DType::kF32, {100}, random_);
  const Result got = run(nullptr, residual, weight, DType::kF32, 0.5f, stream_);
  EXPECT_TRUE(same_bits(got.residual.view(), residual.view()));
  EXPECT_TRUE(all_close(reference::rms_norm_ref(residual.values(), weight.values(), 0.5),
                        got.y.values(), tolerance_of(DType::kF32, 16)));
}

TEST_P(NormTest, WithoutYTheSumIsAllThatIsDone) {
  const HostTensor x = random_tensor(DType::kBF16, {70, 257}, random_);
  const HostTensor residual = random_tensor(DType::kF32, {70, 257}, random_);
  const DeviceTensor sum(residual, stream_);
  const DeviceTensor addend(x, stream_);
  rms_norm({.y = {}, .x = addend.view(), .weight = {}, .residual = sum.view(), .eps = 0}, stream_);
  const HostTensor weight = filled(DType::kF32, {257}, 1);
  const Result normed = run(&x, residual, weight, DType::kBF16, 1e-5f, stream_);
  EXPECT_TRUE(same_bits(sum.read().view(), normed.residual.view()));
}

TEST_P(NormTest, ZeroRowsStayFinite) {
  const HostTensor weight = filled(DType::kF32, {16}, 1);
  const Result got =
      run(nullptr, filled(DType::kF32, {2, 16}, 0), weight, DType::kF32, 1e-6f, stream_);
  for (const double y : got.y.values()) EXPECT_EQ(y, 0);
}

TEST_P(NormTest, ARowDoesNotDependOnItsCompany) {
  constexpr int64_t kRows = 333;
  HostTensor x = random_tensor(DType::kF32, {kRows, 200}, random_);
  x.set(17 * 200, std::numeric_limits<double>::quiet_NaN());  // poisons row 17 only
  const HostTensor residual = random_tensor(DType::kF32, {kRows, 200}, random_);
  const HostTensor weight = random_tensor(DType::kF32, {200}, random_);
  const Result all = run(&x, residual, weight, DType::kF32, 1e-5f, stream_);
  for (const int64_t row : {0, 1, 16, 18, 80, 332}) {
    HostTensor one_x(DType::kF32, {1, 200});
    HostTensor one_residual(DType::kF32, {1, 200});
    std::memcpy(one_x.view().data, x.view().rows(row, row + 1).data, one_x.num_bytes());
    std::memcpy(one_residual.view().data, residual.view().rows(row, row + 1).data,
                one_residual.num_bytes());
    const Result one = run(&one_x, one_residual, weight, DType::kF32, 1e-5f, stream_);
    EXPECT_TRUE(same_bits(one.y.view(), all.y.view().rows(row, row + 1))) << row;
    EXPECT_FALSE(std::isnan(one.y.values()[0]));
  }
  EXPECT_TRUE(std::isnan(all.y.values()[17 * 200 + 50]));
}

}  // namespace
}  // namespace pbserve::test
