// Which device serves: asks the CUDA half for its GPUs, the kernel's /proc and /sys files for the
// CPU's name, instruction sets and memory.
#include "kernels/core/device.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "kernels/core/cgroup.h"

namespace pbserve::kernels {
namespace {

std::string read_file(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What follows "key :" on the first line that starts with key; empty if there is none.
std::string value_of(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (line.compare(0, key.size(), key) != 0 || colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

// The number a text starts with; false if there is none.
bool parse_number(const std::string& text, int64_t& number) {
  return static_cast<bool>(std::istringstream(text) >> number);
}

int64_t meminfo_bytes(const std::string& meminfo, const std::string& key) {
  int64_t kib = 0;
  return parse_number(value_of(meminfo, key), kib) ? kib * 1024 : 0;
}

DeviceInfo cpu_info() {
  const std::string model = value_of(read_file("/proc/cpuinfo"), "model name");
  const std::string meminfo = read_file("/proc/meminfo");
  const Cgroup cgroup = own_cgroup();
  const int num_threads =
      num_usable_cpus(cgroup, static_cast<int>(std::thread::hardware_concurrency()));
  DeviceInfo info{.name = model + ", " + std::to_string(num_threads) + " threads",
                  .total_bytes = meminfo_bytes(meminfo, "MemTotal"),
                  .free_bytes = meminfo_bytes(meminfo, "MemAvailable")};
  if (const std::optional<CgroupMemory> memory = cgroup_memory(cgroup)) {
    info.total_bytes = std::min(info.total_bytes, memory->limit_bytes);
    info.free_bytes = std::min(info.free_bytes, memory->free_bytes);
  }
  return info;
}

absl::StatusOr<DeviceChoice> choose_cpu(std::string reason) {
  const std::string missing =
      missing_instruction_sets(cpu::kInstructionSets, read_file("/proc/cpuinfo"));
  if (!missing.empty()) {
    return absl::UnavailableError(
        "this program was compiled for instruction sets that this CPU lacks: " + missing +
        "; compile it here, or with -DPBSERVE_CPU_ARCH=x86-64-v3");
  }
  return DeviceChoice{.device = {.kind = DeviceKind::kCpu}, .reason = std::move(reason)};
}

// The first GPU that this build's kernels run on, or why there is none.
absl::StatusOr<DeviceChoice> choose_gpu() {
  ASSIGN_OR_RETURN(const std::vector<cuda::Gpu> gpus, cuda::list_gpus());
  std::string refused;
  for (size_t i = 0; i < gpus.size(); ++i) {
    const std::string why(cuda::why_unsupported(gpus[i].sm_version));
    if (why.empty()) {
      return DeviceChoice{.device = {.kind = DeviceKind::kCuda, .index = static_cast<int>(i)},
                          .reason = gpus[i].name};
    }
    refused += (refused.empty() ? "" : "; ") + gpus[i].name + ": " + why;
  }
  return absl::UnavailableError(refused);
}

}  // namespace

std::string missing_instruction_sets(const std::string& required, const std::string& cpuinfo) {
  std::set<std::string> present;
  std::istringstream flags(value_of(cpuinfo, "flags"));
  for (std::string word; flags >> word;) present.insert(word);
  std::string missing;
  std::istringstream words(required);
  for (std::string word; words >> word;) {
    if (present.count(word) > 0) continue;
    if (!missing.empty()) missing += ' ';
    missing += word;
  }
  return missing;
}

absl::StatusOr<DeviceChoice> choose_device(const std::string& wish) {
  if (wish == "cpu") return choose_cpu("asked for");
  if (wish != "cuda" && wish != "auto") {
    return absl::InvalidArgumentError("device \"" + wish + "\": expected auto, cpu or cuda");
  }
  absl::StatusOr<DeviceChoice> gpu = choose_gpu();
  if (gpu.ok() || wish == "cuda") return gpu;
  return choose_cpu(std::string(gpu.status().message()));
}

absl::StatusOr<DeviceInfo> device_info(Device device) {
  if (device.kind == DeviceKind::kCpu) return cpu_info();
  ASSIGN_OR_RETURN(const std::vector<cuda::Gpu> gpus, cuda::list_gpus());
  if (device.index < 0 || device.index >= static_cast<int>(gpus.size())) {
    return absl::NotFoundError("GPU " + std::to_string(device.index) + " of " +
                               std::to_string(gpus.size()) + " does not exist");
  }
  ASSIGN_OR_RETURN(const int64_t free_bytes, cuda::free_bytes(device.index));
  const cuda::Gpu& gpu = gpus[static_cast<size_t>(device.index)];
  return DeviceInfo{.name = gpu.name, .total_bytes = gpu.total_bytes, .free_bytes = free_bytes};
}

}  // namespace pbserve::kernels
