#include "kernels/ops/activation.h"

#include <gtest/gtest.h>

#include "tests/reference/ops_ref.h"
#include "tests/support/backends.h"
#include "tests/support/compare.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;

class ActivationTest : public ::testing::TestWithParam<Backend> {
 protected:
  HostTensor run(const HostTensor& gate_up) {
    const DeviceTensor x(gate_up, stream_);
    const DeviceTensor y(
        poisoned(gate_up.view().dtype, {gate_up.view().dim(0), gate_up.view().dim(1) / 2}),
        stream_);
    silu_mul({.y = y.view(), .gate_up = x.view()}, stream_);
    return y.read();
  }

  std::mt19937 random_{14};
  kernels::Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, ActivationTest, ::testing::ValuesIn(backends()), backend_name);

TEST_P(ActivationTest, MatchesTheReference) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const auto& [rows, width] :
         {std::pair<int64_t, int64_t>(1, 1), {2, 17}, {3, 1024}, {67, 509}, {5, 2056}}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << width << " " << name_of(dtype));
      const HostTensor gate_up = random_tensor(dtype, {rows, 2 * width}, random_);
      EXPECT_TRUE(all_close(reference::silu_mul_ref(gate_up.values(), width), run(gate_up).values(),
                            tolerance_of(dtype, 4)));
    }
  }
}

TEST_P(ActivationTest, LargeGatesSaturate) {
  const HostTensor gate_up =
      tensor_of<float>({200.f, -200.f, -90.f, 0.f, 3.f, 3.f, 3.f, 3.f}, {1, 8});
  const std::vector<double> y = run(gate_up).values();
  EXPECT_EQ(y[0], 600);
  EXPECT_EQ(y[1], 0);
  EXPECT_NEAR(y[2], 0, 1e-30);
  EXPECT_EQ(y[3], 0);
}

}  // namespace
}  // namespace pbserve::test
