// What a request's work throws ends that request, and no thread.
#include "server/run_on_workers.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>

#include "kernels/core/status.h"

namespace pbserve::server {
namespace {

using Result = absl::StatusOr<std::string>;

TEST(RunOnWorkers, OutOfMemoryIs503) {
  auto work = []() -> Result { throw std::bad_alloc(); };
  const Result result = run_caught(work);
  EXPECT_EQ(http_status(result.status()), 503);
  EXPECT_EQ(result.status(), out_of_memory());
}

TEST(RunOnWorkers, OtherExceptionsAre500) {
  auto work = []() -> Result { throw std::length_error("too long"); };
  EXPECT_EQ(http_status(run_caught(work).status()), 500);
}

TEST(RunOnWorkers, ResultsPass) {
  auto work = []() -> Result { return "done"; };
  EXPECT_EQ(*run_caught(work), "done");
}

}  // namespace
}  // namespace pbserve::server
