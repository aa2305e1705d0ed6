// Names of parameters in a Hugging Face checkpoint; the same for Llama, Qwen2 and Qwen3.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pbserve::models {

inline constexpr std::string_view kEmbeddingName = "model.embed_tokens.weight";
inline constexpr std::string_view kFinalNormName = "model.norm.weight";
inline constexpr std::string_view kLmHeadName = "lm_head.weight";

// "model.layers.3.self_attn.q_proj.weight"
inline std::string layer_parameter(int64_t layer, std::string_view name) {
  return "model.layers." + std::to_string(layer) + "." + std::string(name);
}

}  // namespace pbserve::models
