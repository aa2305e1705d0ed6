#include "models/config_fields.h"

#include <algorithm>
#include <utility>

#include "models/message.h"

namespace pbserve::models {

namespace {

// Keys that describe training, files, the framework or another runtime and leave inference as it
// is.
constexpr std::string_view kHarmlessKeys[] = {
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "hidden_dropout",
    "initializer_range",
    "is_llama_config",
    "max_window_layers",
    "model_max_length",
    "model_type",
    "neftune_noise_alpha",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
};

constexpr FloatRange kThetaRange{2.0, 1e12};
constexpr FloatRange kFactorRange{1.0, 1024.0};
constexpr IntRange kPositionRange{1, 1 << 24};

}  // namespace

void read_geometry(JsonReader& json, ModelConfig& config) {
  json.ignore(kHarmlessKeys);
  config.vocab_size = json.integer("vocab_size", {1, 1 << 20});
  config.hidden_size = json.integer("hidden_size", {1, 1 << 16});
  config.intermediate_size = json.integer("intermediate_size", {1, 1 << 18});
  config.num_layers = json.integer("num_hidden_layers", {1, 1024});
  config.num_q_heads = json.integer("num_attention_heads", {1, 1024});
  config.num_kv_heads = json.integer("num_key_value_heads", {1, 1024});
  config.max_position = json.integer("max_position_embeddings", kPositionRange);
  config.norm_eps = static_cast<float>(json.number("rms_norm_eps", {1e-12, 1e-1}));
  config.tied_embeddings = json.boolean_or("tie_word_embeddings", false);
  if (config.num_q_heads % config.num_kv_heads != 0) {
    json.fail("num_key_value_heads", message("is ", config.num_kv_heads, ", not a divisor of ",
                                             config.num_q_heads, " attention heads"));
  }
  json.require_neutral("hidden_act", "silu");
  json.require_neutral("pretraining_tp", 1);
  json.require_neutral("attention_bias", false);
  json.require_neutral("mlp_bias", false);
  json.require_neutral("partial_rotary_factor", 1.0);
  json.require_neutral("rope_interleaved", false);
  json.require_neutral("use_mrope", false);
  if (json.has("quantization_config")) {
    json.fail("quantization_config", "names quantised weights, which are not supported");
  }
  if (json.has("dual_chunk_attention_config")) {
    json.fail("dual_chunk_attention_config",
              "is not supported; to attend without it, which changes prompts longer than its "
              "chunks, pass --hf-overrides '{\"dual_chunk_attention_config\": null}'");
  }
}

namespace {

// The object that holds the rope's parameters, or nullptr; `key` is set to its name.
const nlohmann::json* find_rope_object(JsonReader& json, std::string& key) {
  const nlohmann::json* scaling = json.find("rope_scaling");
  const nlohmann::json* parameters = json.find("rope_parameters");
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters) {
    json.fail("rope_scaling", "contradicts 'rope_parameters': set one of them to null");
  }
  key = parameters != nullptr ? "rope_parameters" : "rope_scaling";
  return parameters != nullptr ? parameters : scaling;
}

RopeType read_rope_type(JsonReader& rope) {
  const std::string older = rope.string_or("type", "");
  const std::string type = rope.string_or("rope_type", older.empty() ? "default" : older);
  if (!older.empty() && older != type) rope.fail("type", "contradicts 'rope_type'");
  constexpr std::pair<std::string_view, RopeType> kTypes[] = {{"default", RopeType::kDefault},
                                                              {"linear", RopeType::kLinear},
                                                              {"llama3", RopeType::kLlama3},
                                                              {"yarn", RopeType::kYarn}};
  for (const auto& [name, value] : kTypes) {
    if (name == type) return value;
  }
  rope.fail("rope_type", message("is '", type,
                                 "', which is not supported: expected default, linear, "
                                 "llama3 or yarn"));
  return RopeType::kDefault;
}

void read_theta(JsonReader& json, JsonReader& rope, RopeConfig& config) {
  const bool outside = json.has("rope_theta");
  const bool inside = rope.has("rope_theta");
  const double outer = json.number_or("rope_theta", kThetaRange, config.theta);
  config.theta = rope.number_or("rope_theta", kThetaRange, outer);
  if (outside && inside && outer != config.theta) {
    rope.fail("rope_theta", message("is ", config.theta, " and contradicts the outer ", outer));
  }
}

void read_llama3(JsonReader& rope, RopeConfig& config) {
  config.low_freq_factor = rope.number("low_freq_factor", {1e-3, 1e6});
  config.high_freq_factor = rope.number("high_freq_factor", {1e-3, 1e6});
  if (config.high_freq_factor <= config.low_freq_factor) {
    rope.fail("high_freq_factor", "is not above 'low_freq_factor'");
  }
}

void read_yarn(JsonReader& rope, RopeConfig& config) {
  config.beta_fast = rope.number_or("beta_fast", {1e-3, 1e6}, config.beta_fast);
  config.beta_slow = rope.number_or("beta_slow", {1e-3, 1e6}, config.beta_slow);
  config.truncate = rope.boolean_or("truncate", config.truncate);
  config.mscale = rope.number_or("mscale", {0.0, 100.0}, 0.0);
  config.mscale_all_dim = rope.number_or("mscale_all_dim", {0.0, 100.0}, 0.0);
  if (rope.has("attention_factor")) {
    config.attention_factor = rope.number("attention_factor", {1e-3, 100.0});
  }
}

}  // namespace

void read_rope(JsonReader& json, ModelConfig& config) {
  const nlohmann::json absent = nlohmann::json::object();
  std::string key;
  const nlohmann::json* object = find_rope_object(json, key);
  JsonReader rope(object == nullptr ? absent : *object, message(json.what(), ": ", key));

  RopeConfig& result = config.rope;
  result.type = read_rope_type(rope);
  read_theta(json, rope, result);
  rope.require_neutral("partial_rotary_factor", 1.0);
  if (result.type != RopeType::kDefault) result.factor = rope.number("factor", kFactorRange);
  if (result.type == RopeType::kLlama3 || result.type == RopeType::kYarn) {
    result.original_max_position =
        rope.integer_or("original_max_position_embeddings", kPositionRange, config.max_position);
  }
  if (result.type == RopeType::kLlama3) read_llama3(rope, result);
  if (result.type == RopeType::kYarn) {
    read_yarn(rope, result);
    // Folders give yarn's `factor` beside the trained length, and leave it to the server to widen.
    const double widened = static_cast<double>(result.original_max_position) * result.factor;
    config.max_position = std::max(
        config.max_position, static_cast<int64_t>(std::min(widened, double{kPositionRange.max})));
  }
  for (const std::string& unread : rope.unread_keys()) {
    rope.fail(unread, "has no meaning for this rope type");
  }
  json.fail(rope.status());
}

void refuse_sliding_window(JsonReader& json, const ModelConfig& config, SlidingWindowRule rule) {
  const bool given = json.has("sliding_window");
  if (json.boolean_or("use_sliding_window", given && rule.used_unless_disabled)) {
    json.fail(json.has("use_sliding_window") ? "use_sliding_window" : "sliding_window",
              "asks for sliding-window attention, which is not supported");
  }
  const nlohmann::json* layer_types = json.find("layer_types");
  if (layer_types == nullptr) return;
  if (!layer_types->is_array() || layer_types->size() != static_cast<size_t>(config.num_layers)) {
    return json.fail("layer_types", message("is not a list of ", config.num_layers, " names"));
  }
  for (const nlohmann::json& type : *layer_types) {
    if (type != "full_attention") {
      return json.fail("layer_types", message("holds ", type.dump(-1, ' ', true),
                                              ": only \"full_attention\" is supported"));
    }
  }
}

}  // namespace pbserve::models
