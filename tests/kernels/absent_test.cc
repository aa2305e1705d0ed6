// What stands in for the CUDA operations in a build without them; linked here in every build.
#include <gtest/gtest.h>

#include "kernels/ops/linear.h"
#include "kernels/ops/norm.h"

namespace pbserve::kernels {
namespace {

TEST(AbsentBackendDeathTest, NamesTheOperation) {
  EXPECT_DEATH(cuda::rms_norm({}, nullptr), "rms_norm: this build has no CUDA kernels");
  EXPECT_DEATH(cuda::linear({}, nullptr), "linear: this build has no CUDA kernels");
}

}  // namespace
}  // namespace pbserve::kernels
