// What is said where no GPU serves: whether one was to be expected, and which driver is missing.
#pragma once

#include <string>

namespace pbserve::kernels {

// This build has CUDA, or the machine an NVIDIA GPU: a server on the CPU may be a mistake.
bool expects_gpu();

// Whether a folder like /sys/bus/pci/devices, which needs no driver, lists an NVIDIA GPU.
bool has_nvidia_gpu(const std::string& pci_devices);

namespace cuda {

extern const int kRuntimeVersion;  // as CUDA counts: 13000 for 13.0; 0 = a build without CUDA

// Why a driver cannot serve a build, and which one can. `driver_version` is the newest CUDA that
// the driver knows; 0 = there is no driver.
std::string unfit_driver(int driver_version, int runtime_version);

}  // namespace cuda
}  // namespace pbserve::kernels
