// What a network's shape asks of the kernels, said before the first of them runs: each device has
// its own limits, and config.json has the fields that meet them.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/status.h"
#include "models/config.h"

namespace pbserve::models {

// kInvalidArgument names the field of config.json, its value and what the device takes.
absl::Status check_device_support(const ModelConfig& config, kernels::DeviceKind device);

}  // namespace pbserve::models
