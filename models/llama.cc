// LlamaForCausalLM: Llama 2 and 3 and the many models that share their shape.
#include "models/catalog.h"
#include "models/config_fields.h"

namespace pbserve::models {

void read_llama_config(JsonReader& json, ModelConfig& config) {
  read_geometry(json, config);
  config.head_dim =
      json.integer_or("head_dim", kHeadDimRange, config.hidden_size / config.num_q_heads);
  refuse_sliding_window(json, config, {.used_unless_disabled = true});
  json.require_neutral("is_llama_config", true);
  read_rope(json, config);
}

}  // namespace pbserve::models
