// The architectures pbserve runs, by the name that config.json gives them.
#pragma once

#include <string>
#include <string_view>

#include "models/config.h"
#include "models/json_reader.h"

namespace pbserve::models {

struct Architecture {
  std::string_view name;  // "LlamaForCausalLM"
  // Reads every key of config.json that this architecture knows; errors stay in `json`.
  void (*read_config)(JsonReader& json, ModelConfig& config);
};

// nullptr for an architecture pbserve does not run.
const Architecture* find_architecture(std::string_view name);

// "LlamaForCausalLM, Qwen2ForCausalLM, ..." for error messages.
std::string architecture_names();

void read_llama_config(JsonReader& json, ModelConfig& config);
void read_qwen2_config(JsonReader& json, ModelConfig& config);
void read_qwen3_config(JsonReader& json, ModelConfig& config);

}  // namespace pbserve::models
