// Which backend a tensor and a stream belong to. Chosen once at start-up.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/core/status.h"

namespace pbserve::kernels {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
};

struct DeviceInfo {
  std::string name;          // "AMD EPYC 9654, 2 threads" or "NVIDIA H200"
  int64_t total_bytes = 0;   // memory the backend can allocate from
  int64_t free_bytes = 0;
};

// Resolves "auto" | "cpu" | "cuda". "auto" takes a GPU this build supports, else the CPU, and says
// why in `reason`. "cuda" without a usable GPU is kUnavailable.
struct DeviceChoice {
  Device device;
  std::string reason;
};
absl::StatusOr<DeviceChoice> choose_device(const std::string& wish);

absl::StatusOr<DeviceInfo> device_info(Device device);

}  // namespace pbserve::kernels
