// Qwen2ForCausalLM (Qwen 2 and 2.5: biases on q, k and v) and Qwen3ForCausalLM (each head of q and
// k is normed; heads have a size of their own). Both carry a `sliding_window` that is off unless
// `use_sliding_window` says otherwise.
#include "models/catalog.h"
#include "models/config_fields.h"

namespace pbserve::models {

void read_qwen2_config(JsonReader& json, ModelConfig& config) {
  read_geometry(json, config);
  config.head_dim =
      json.integer_or("head_dim", kHeadDimRange, config.hidden_size / config.num_q_heads);
  config.qkv_bias = true;
  refuse_sliding_window(json, config, {.used_unless_disabled = false});
  read_rope(json, config);
}

void read_qwen3_config(JsonReader& json, ModelConfig& config) {
  constexpr int64_t kDefaultHeadDim = 128;
  read_geometry(json, config);
  config.head_dim = json.integer_or("head_dim", kHeadDimRange, kDefaultHeadDim);
  config.qk_norm = true;
  refuse_sliding_window(json, config, {.used_unless_disabled = false});
  read_rope(json, config);
}

}  // namespace pbserve::models
