#include "models/device_support.h"

#include "models/message.h"

namespace pbserve::models {
namespace {

// kernels/cuda is compiled for heads of these sizes (check_heads).
constexpr int64_t kCudaHeadDims[] = {64, 128};
// cuBLASLt adds a bias in float32 where the rows of a product are whole vectors of 16 bytes.
constexpr int64_t kCudaBiasMultiple = 8;  // of bfloat16

absl::Status check_cuda(const ModelConfig& config) {
  if (config.head_dim != kCudaHeadDims[0] && config.head_dim != kCudaHeadDims[1]) {
    return invalid("config.json: head_dim is ", config.head_dim,
                   " (where it is not given: hidden_size / num_attention_heads), the GPU takes ",
                   kCudaHeadDims[0], " and ", kCudaHeadDims[1], "; the CPU takes it: --device cpu");
  }
  if (config.qkv_bias && config.hidden_size % kCudaBiasMultiple != 0) {
    return invalid("config.json: hidden_size is ", config.hidden_size,
                   ", the GPU takes multiples of ", kCudaBiasMultiple,
                   " where q, k and v have biases; the CPU takes it: --device cpu");
  }
  return absl::OkStatus();
}

}  // namespace

// The CPU takes whatever parse_model_config lets through.
absl::Status check_device_support(const ModelConfig& config, kernels::DeviceKind device) {
  return device == kernels::DeviceKind::kCuda ? check_cuda(config) : absl::OkStatus();
}

}  // namespace pbserve::models
