// ModelConfig: the arithmetic of a decoder-only network, read from a Hugging Face folder's
// config.json. A key that would change the arithmetic and is not implemented is refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/core/status.h"

namespace pbserve::models {

enum class RopeType : uint8_t { kDefault, kLinear, kLlama3, kYarn };

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  int64_t original_max_position = 0;
  double low_freq_factor = 1.0;            // llama3
  double high_freq_factor = 4.0;           // llama3
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  std::optional<double> attention_factor;  // yarn; follows from the rest if absent
  double mscale = 0.0;                     // yarn; 0 = absent
  double mscale_all_dim = 0.0;             // yarn; 0 = absent
  bool truncate = true;                    // yarn
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", ...
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;        // C
  int64_t intermediate_size = 0;  // F
  int64_t num_layers = 0;
  int64_t num_q_heads = 0;   // Hq
  int64_t num_kv_heads = 0;  // Hkv
  int64_t head_dim = 0;      // D
  int64_t max_position = 0;  // positions the model serves; yarn's factor included
  float norm_eps = 1e-5f;
  bool tied_embeddings = false;
  bool qkv_bias = false;  // Qwen2
  bool qk_norm = false;   // Qwen3
  RopeConfig rope;
};

// What generation_config.json says; request fields win over it.
struct GenerationDefaults {
  std::vector<int32_t> eos_token_ids;  // sorted, unique; config.json's eos_token_id if no list here
  std::optional<float> temperature;    // 0 where do_sample is false
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::vector<std::string> unused_keys;  // would change sampling, not implemented: to be logged
};

// Reads <folder>/config.json with `overrides` (a JSON object, RFC 7386 merge patch, may be empty)
// laid over it. Errors name the file and the key.
absl::StatusOr<ModelConfig> load_model_config(const std::string& folder,
                                              const std::string& overrides);

// The same from text; `what` names it in errors.
absl::StatusOr<ModelConfig> parse_model_config(std::string_view text, std::string_view overrides,
                                               std::string_view what);

// An absent generation_config.json is fine; a broken one is an error.
absl::StatusOr<GenerationDefaults> load_generation_defaults(const std::string& folder);

}  // namespace pbserve::models
