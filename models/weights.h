// WeightStore: the parameters of one model on one device, laid out as the operations read them.
// Filled once at start-up, read-only afterwards.
#pragma once

#include <string>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/ops/linear.h"
#include "models/config.h"

namespace pbserve::models {

class WeightSource;

struct LayerWeights {
  kernels::Tensor attn_norm;      // [C] float32
  kernels::LinearWeight qkv;      // [(Hq + 2 Hkv) D, C]: q, k, v
  kernels::Tensor qkv_bias;       // [(Hq + 2 Hkv) D] float32, or empty
  kernels::Tensor q_norm;         // [D] float32, or empty
  kernels::Tensor k_norm;         // [D] float32, or empty
  kernels::LinearWeight out;      // [C, Hq D]
  kernels::Tensor mlp_norm;       // [C] float32
  kernels::LinearWeight gate_up;  // [2 F, C]: gate, up
  kernels::LinearWeight down;     // [C, F]
};

class WeightStore {
 public:
  // Reads model.safetensors, or the shards of model.safetensors.index.json, converting bf16, f16
  // and f32 to `dtype`. Missing, surplus or misshapen tensors are errors that name them.
  static absl::StatusOr<WeightStore> load(const std::string& folder, const ModelConfig& config,
                                          kernels::DType dtype, const kernels::Stream& stream);

  // Seeded random weights from the config alone (--load-format dummy).
  static absl::StatusOr<WeightStore> dummy(const ModelConfig& config, kernels::DType dtype,
                                           uint64_t seed, const kernels::Stream& stream);

  // Fills every parameter from `source`.
  static absl::StatusOr<WeightStore> fill(const ModelConfig& config, kernels::DType dtype,
                                          WeightSource& source, const kernels::Stream& stream);

  // Bytes that all parameters of `config` take on `device`; nothing is taken.
  static size_t measure(const ModelConfig& config, kernels::DType dtype, kernels::Device device);

  kernels::DType dtype() const { return dtype_; }
  size_t num_bytes() const { return buffer_.size(); }

  kernels::Tensor embedding;      // [V, C]
  kernels::Tensor final_norm;     // [C] float32
  kernels::LinearWeight lm_head;  // [V, C]; where tied the embedding, or its values packed
  std::vector<LayerWeights> layers;

 private:
  kernels::DType dtype_ = kernels::DType::kBF16;
  kernels::DeviceBuffer buffer_;  // holds all of the above
};

}  // namespace pbserve::models
