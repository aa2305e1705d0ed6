// The backends a test runs on: the CPU always, CUDA if a device answers that this build supports.
//   INSTANTIATE_TEST_SUITE_P(Backends, NormTest, ::testing::ValuesIn(backends()), backend_name);
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/stream.h"

namespace pbserve::test {

struct Backend {
  std::string name;
  kernels::Device device;
};

inline std::vector<Backend> backends() {
  std::vector<Backend> list = {{.name = "cpu", .device = {}}};
  const auto gpu = kernels::choose_device("cuda");
  if (gpu.ok()) list.push_back({.name = "cuda", .device = gpu->device});
  return list;
}

inline std::string backend_name(const ::testing::TestParamInfo<Backend>& test) {
  return test.param.name;
}

// Fails the test run at once if the device gives no stream.
inline kernels::Stream stream_of(const Backend& backend, int cpu_threads = 2) {
  auto stream = kernels::Stream::create(backend.device, cpu_threads);
  check(stream.ok(), stream.status().ToString());
  return *std::move(stream);
}

}  // namespace pbserve::test
