#include "kernels/cuda/green_context.h"

#include <cuda.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/core/bits.h"
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

using Resources = std::vector<CUdevResource>;

int count_sms(const Resources& resources) {
  int num_sms = 0;
  for (const CUdevResource& part : resources) num_sms += static_cast<int>(part.sm.smCount);
  return num_sms;
}

}  // namespace

// One split of one GPU.
class SmSplit {
 public:
  SmSplit(const Driver& driver, CUdevice device) : driver_(driver), device_(device) {}

  absl::Status run(int num_sms, SmLayout layout);
  absl::StatusOr<GreenContext::Pair> contexts();

 private:
  absl::Status cut(const CUdevResource& all, unsigned flags, int group_sms, unsigned num_groups);
  absl::StatusOr<std::unique_ptr<GreenContext>> context(Resources& resources);

  const Driver& driver_;
  CUdevice device_;
  Resources groups_;
  CUdevResource rest_{};
  Resources first_, second_;
};

absl::Status SmSplit::cut(const CUdevResource& all, unsigned flags, int group_sms,
                          unsigned num_groups) {
  groups_.resize(num_groups);
  RETURN_IF_ERROR(driver_.to_status(driver_.split(groups_.data(), &num_groups, &all, &rest_, flags,
                                                  static_cast<unsigned>(group_sms)),
                                    "split of a GPU"));
  groups_.resize(num_groups);
  return absl::OkStatus();
}

// Together: one group of the wanted size and what remains. Else the GPU is cut into groups as small
// as can be, of which the first part has every so many.
absl::Status SmSplit::run(int num_sms, SmLayout layout) {
  CUdevResource all{};
  RETURN_IF_ERROR(driver_.to_status(driver_.resource(device_, &all, CU_DEV_RESOURCE_TYPE_SM),
                                    "multiprocessors of the GPU"));
  const auto total = static_cast<int>(all.sm.smCount);
  if (num_sms < 1 || num_sms >= total) {
    return absl::InvalidArgumentError("a partition of " + std::to_string(num_sms) +
                                      " multiprocessors: must be in [1, " +
                                      std::to_string(total - 1) + "]");
  }
  if (layout == SmLayout::kTogether) {
    RETURN_IF_ERROR(cut(all, 0, num_sms, 1));
    first_ = groups_;
  } else {
    const bool is_pairs = layout == SmLayout::kPairs;
    const int group_sms = is_pairs ? 2 : static_cast<int>(all.sm.minSmPartitionSize);
    RETURN_IF_ERROR(cut(all, is_pairs ? CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING : 0,
                        group_sms, static_cast<unsigned>(total / group_sms)));
    const size_t num_wanted = ceil_div(static_cast<size_t>(num_sms), size_t(group_sms));
    for (size_t i = 0; i < groups_.size(); ++i) {
      const bool is_first = (i + 1) * num_wanted / groups_.size() > i * num_wanted / groups_.size();
      (is_first ? first_ : second_).push_back(groups_[i]);
    }
  }
  if (rest_.type == CU_DEV_RESOURCE_TYPE_SM && rest_.sm.smCount > 0) second_.push_back(rest_);
  if (count_sms(first_) < num_sms || second_.empty()) {
    return absl::InvalidArgumentError(
        "a partition of " + std::to_string(num_sms) + " of " + std::to_string(total) +
        " multiprocessors leaves none for the others: the GPU parts them in groups");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GreenContext>> SmSplit::context(Resources& resources) {
  CUdevResourceDesc description = nullptr;
  RETURN_IF_ERROR(driver_.to_status(
      driver_.describe(&description, resources.data(), static_cast<unsigned>(resources.size())),
      "description of a part of the GPU"));
  CUgreenCtx handle = nullptr;
  RETURN_IF_ERROR(
      driver_.to_status(driver_.create(&handle, description, device_, CU_GREEN_CTX_DEFAULT_STREAM),
                        "creation of a green context"));
  return std::unique_ptr<GreenContext>(new GreenContext(handle, count_sms(resources)));
}

// The rest of a split may be aligned otherwise than its groups, and then a driver may refuse to
// join them: those few SMs stay idle, which num_sms() shows.
absl::StatusOr<GreenContext::Pair> SmSplit::contexts() {
  ASSIGN_OR_RETURN(auto first, context(first_));
  auto second = context(second_);
  if (!second.ok() && second_.size() > 1 && rest_.sm.smCount > 0) {
    second_.pop_back();
    second = context(second_);
  }
  RETURN_IF_ERROR(second.status());
  return GreenContext::Pair(std::move(first), *std::move(second));
}

absl::StatusOr<GreenContext::Pair> GreenContext::split(int index, int num_sms, SmLayout layout) {
  RETURN_IF_ERROR(driver().status());
  CUdevice device = 0;
  RETURN_IF_ERROR(driver()->to_status(driver()->device(&device, index), "GPU selection"));
  SmSplit split(*driver(), device);
  RETURN_IF_ERROR(split.run(num_sms, layout));
  return split.contexts();
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
