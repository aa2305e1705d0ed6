#include "kernels/cuda/green_context.h"

#include <cuda.h>

#include <string>
#include <utility>

#include "kernels/cuda/cuda_check.h"

namespace pbserve::kernels::cuda {
namespace {

// The driver's functions, found through the runtime: the program does not link the driver.
struct Driver {
  decltype(&cuGetErrorName) error_name = nullptr;
  decltype(&cuDeviceGet) device = nullptr;
  decltype(&cuDeviceGetDevResource) resource = nullptr;
  decltype(&cuDevSmResourceSplitByCount) split = nullptr;
  decltype(&cuDevResourceGenerateDesc) describe = nullptr;
  decltype(&cuGreenCtxCreate) create = nullptr;
  decltype(&cuGreenCtxDestroy) destroy = nullptr;
  decltype(&cuGreenCtxStreamCreate) create_stream = nullptr;

  absl::Status to_status(CUresult result, const std::string& what) const {
    if (result == CUDA_SUCCESS) return absl::OkStatus();
    const char* name = nullptr;
    error_name(result, &name);
    return absl::UnavailableError(what + ": " + (name != nullptr ? name : std::to_string(result)));
  }
};

template <class Function>
absl::Status find(const char* name, Function& to) {
  constexpr unsigned kVersion = 12050;  // the first with all of them
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  RETURN_IF_ERROR(to_status(
      cudaGetDriverEntryPointByVersion(name, &found, kVersion, cudaEnableDefault, &result),
      std::string("search for ") + name));
  if (result != cudaDriverEntryPointSuccess) {
    return absl::UnavailableError(std::string("the driver lacks ") + name +
                                  ": a partition of a GPU wants CUDA 12.5 or later");
  }
  to = reinterpret_cast<Function>(found);
  return absl::OkStatus();
}

absl::StatusOr<Driver> find_driver() {
  Driver driver;
  RETURN_IF_ERROR(find("cuGetErrorName", driver.error_name));
  RETURN_IF_ERROR(find("cuDeviceGet", driver.device));
  RETURN_IF_ERROR(find("cuDeviceGetDevResource", driver.resource));
  RETURN_IF_ERROR(find("cuDevSmResourceSplitByCount", driver.split));
  RETURN_IF_ERROR(find("cuDevResourceGenerateDesc", driver.describe));
  RETURN_IF_ERROR(find("cuGreenCtxCreate", driver.create));
  RETURN_IF_ERROR(find("cuGreenCtxDestroy", driver.destroy));
  RETURN_IF_ERROR(find("cuGreenCtxStreamCreate", driver.create_stream));
  return driver;
}

const absl::StatusOr<Driver>& driver() {
  static const absl::StatusOr<Driver> kDriver = find_driver();
  return kDriver;
}

absl::StatusOr<std::unique_ptr<GreenContext>> create_context(CUdevResource part, CUdevice device) {
  CUdevResourceDesc description = nullptr;
  RETURN_IF_ERROR(driver()->to_status(driver()->describe(&description, &part, 1),
                                      "description of a part of the GPU"));
  CUgreenCtx handle = nullptr;
  RETURN_IF_ERROR(driver()->to_status(
      driver()->create(&handle, description, device, CU_GREEN_CTX_DEFAULT_STREAM),
      "creation of a green context"));
  return std::make_unique<GreenContext>(handle, static_cast<int>(part.sm.smCount));
}

}  // namespace

absl::StatusOr<GreenContext::Pair> GreenContext::split(int index, int num_sms) {
  RETURN_IF_ERROR(driver().status());
  CUdevice device = 0;
  RETURN_IF_ERROR(driver()->to_status(driver()->device(&device, index), "GPU selection"));
  CUdevResource all{};
  RETURN_IF_ERROR(driver()->to_status(driver()->resource(device, &all, CU_DEV_RESOURCE_TYPE_SM),
                                      "multiprocessors of the GPU"));
  const auto total = static_cast<int>(all.sm.smCount);
  if (num_sms < 1 || num_sms >= total) {
    return absl::InvalidArgumentError("a partition of " + std::to_string(num_sms) +
                                      " multiprocessors: must be in [1, " +
                                      std::to_string(total - 1) + "]");
  }
  CUdevResource wanted{};
  CUdevResource others{};
  unsigned num_groups = 1;
  // Without flags a group holds whole clusters: the kernels that run in clusters find a place.
  RETURN_IF_ERROR(driver()->to_status(
      driver()->split(&wanted, &num_groups, &all, &others, 0, static_cast<unsigned>(num_sms)),
      "split of a GPU"));
  if (num_groups != 1 || others.type != CU_DEV_RESOURCE_TYPE_SM || others.sm.smCount == 0) {
    return absl::InvalidArgumentError(
        "a partition of " + std::to_string(num_sms) + " of " + std::to_string(total) +
        " multiprocessors leaves none for the others: the GPU parts them in groups");
  }
  ASSIGN_OR_RETURN(auto first, create_context(wanted, device));
  ASSIGN_OR_RETURN(auto second, create_context(others, device));
  return Pair(std::move(first), std::move(second));
}

GreenContext::~GreenContext() { driver()->destroy(static_cast<CUgreenCtx>(handle_)); }

absl::StatusOr<cudaStream_t> GreenContext::create_stream() const {
  CUstream stream = nullptr;
  constexpr int kPriority = 0;
  RETURN_IF_ERROR(
      driver()->to_status(driver()->create_stream(&stream, static_cast<CUgreenCtx>(handle_),
                                                  CU_STREAM_NON_BLOCKING, kPriority),
                          "creation of a stream on a part of the GPU"));
  return stream;
}

}  // namespace pbserve::kernels::cuda
