#include "kernels/core/gpu_presence.h"

#include <filesystem>
#include <fstream>

namespace pbserve::kernels {
namespace {

std::string first_word(const std::filesystem::path& file) {
  std::string word;
  std::ifstream(file) >> word;
  return word;
}

// As CUDA counts: 12080 is 12.8.
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Within a major version every driver from this branch on serves (table "CUDA Toolkit and Minimum
// Required Driver Version" of CUDA's release notes).
std::string driver_branch(int runtime_version) {
  switch (runtime_version / 1000) {
    case 12:
      return "525 or newer";
    case 13:
      return "580 or newer";
    default:
      return "that knows CUDA " + version_text(runtime_version);
  }
}

}  // namespace

bool expects_gpu() { return cuda::kRuntimeVersion > 0 || has_nvidia_gpu("/sys/bus/pci/devices"); }

bool has_nvidia_gpu(const std::string& pci_devices) {
  std::error_code error;  // a container may hide the folder
  for (const auto& device : std::filesystem::directory_iterator(pci_devices, error)) {
    const bool is_display = first_word(device.path() / "class").starts_with("0x03");
    if (is_display && first_word(device.path() / "vendor") == "0x10de") return true;
  }
  return false;
}

std::string cuda::unfit_driver(int driver_version, int runtime_version) {
  const std::string need = "; this build uses CUDA " + version_text(runtime_version) +
                           ", which needs driver " + driver_branch(runtime_version);
  if (driver_version == 0) {
    return "no NVIDIA driver answers" + need + "; a container gets it with --gpus all";
  }
  return "the NVIDIA driver is too old: it knows CUDA up to " + version_text(driver_version) + need;
}

}  // namespace pbserve::kernels
