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
  int64_t num_host_pages = 0;  // device.kv_offload_bytes
  RunnerLimits runner;
};

// A device once the weights are loaded.
struct DeviceMemory {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
  int64_t taken_bytes = 0;      // by this server's weights
  int64_t host_free_bytes = 0;  // of the machine; on the CPU that is free_bytes
};

// What workspace and cache may take. On the CPU, and where device.kv_cache_bytes is given, that is
// what is free. On a GPU it is the rest of this server's share of the card, so that servers that
// start side by side take what they are told to and not what the other has not taken yet.
//   kResourceExhausted  the share is not free: says how much of the card others hold
absl::StatusOr<int64_t> usable_bytes(const EngineConfig& config, kernels::Device device,
                                     const DeviceMemory& memory);

//   kInvalidArgument    max_model_len is above the model's positions
//   kResourceExhausted  not even one context fits, or the host tier does not: names what was needed
//                       and what there is
absl::StatusOr<MemoryPlan> plan_memory(const EngineConfig& config, const models::ModelConfig& model,
                                       kernels::DType dtype, kernels::Device device,
                                       const DeviceMemory& memory);

}  // namespace pbserve::engine
