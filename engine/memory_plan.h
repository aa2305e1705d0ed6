// MemoryPlan: how the device's memory is divided before anything is taken, and the longest context
// that leaves: no request can ask for more than was there at the start.
#pragma once

#include <cstdint>
#include <string>

#include "engine/config.h"
#include "engine/kv_cache_pool.h"
#include "engine/model_runner.h"
#include "models/config.h"

namespace pbserve::engine {

struct MemoryPlan {
  int64_t max_model_len = 0;  // tokens of prompt and output together
  std::string limited_by;     // what keeps it from being longer
  int64_t num_pages = 0;
  RunnerLimits runner;
};

// Called after the weights are loaded: `info` says what is left of the device.
//   kInvalidArgument    max_model_len is above the model's positions
//   kResourceExhausted  not even one context fits: names what was needed and what there is
absl::StatusOr<MemoryPlan> plan_memory(const EngineConfig& config, const models::ModelConfig& model,
                                       kernels::DType dtype, kernels::Device device,
                                       const kernels::DeviceInfo& info);

}  // namespace pbserve::engine
