// Which backend a tensor and a stream belong to. Chosen once at start-up.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace pbserve::kernels {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
};

struct DeviceInfo {
  std::string name;         // "AMD EPYC 9654, 2 threads" or "NVIDIA H200"
  int64_t total_bytes = 0;  // memory the backend can allocate from
  int64_t free_bytes = 0;
};

// Resolves "auto" | "cpu" | "cuda". "auto" takes a GPU this build supports, else the CPU, and says
// why in `reason`. "cuda" without a usable GPU is kUnavailable; so is the CPU when it lacks an
// instruction set that the CPU kernels were compiled for.
struct DeviceChoice {
  Device device;
  std::string reason;
};
absl::StatusOr<DeviceChoice> choose_device(const std::string& wish);

absl::StatusOr<DeviceInfo> device_info(Device device);

// The words of `required` that the first "flags" line of a /proc/cpuinfo text lacks.
std::string missing_instruction_sets(const std::string& required, const std::string& cpuinfo);

namespace cpu {
extern const char kInstructionSets[];  // what the kernels were compiled for, in cpuinfo's words
}

namespace cuda {
struct Gpu {
  std::string name;
  int sm_version;  // 90 for compute capability 9.0
  int64_t total_bytes;
};
// The GPUs that answer, in index order. kUnavailable carries the reason there are none.
absl::StatusOr<std::vector<Gpu>> list_gpus();
absl::StatusOr<int64_t> free_bytes(int index);
// Empty if this build's operations run on the architecture, else the reason they do not.
std::string_view why_unsupported(int sm_version);
}  // namespace cuda

}  // namespace pbserve::kernels
