// generation_config.json: when a generation ends, and how tokens are drawn if a request says
// nothing.
#include <limits>

#include "models/config.h"
#include "models/json_reader.h"

namespace pbserve::models {

namespace {

constexpr size_t kFileBytesMax = 4 << 20;
constexpr size_t kEosIdsMax = 32;  // as many as kernels::SampleArgs can ban before min_tokens

// Keys that choose nothing about the next token.
constexpr std::string_view kHarmlessKeys[] = {
    "_from_model_config", "bos_token_id",         "max_length", "max_new_tokens",
    "pad_token_id",       "transformers_version", "use_cache",  "cache_implementation",
};

absl::StatusOr<nlohmann::json> read_object(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kFileBytesMax));
  return parse_json(text, path);
}

void read_sampling(JsonReader& json, GenerationDefaults& defaults) {
  if (json.has("temperature")) {
    defaults.temperature = static_cast<float>(json.number("temperature", {0.0, 100.0}));
  }
  if (!json.boolean_or("do_sample", true)) defaults.temperature = 0.0f;
  if (json.has("top_p")) {
    defaults.top_p = static_cast<float>(json.number("top_p", {1e-6, 1.0}));
  }
  if (json.has("top_k")) {
    constexpr IntRange kTopK{0, std::numeric_limits<int32_t>::max()};
    defaults.top_k = static_cast<int32_t>(json.integer("top_k", kTopK));
  }
}

}  // namespace

absl::StatusOr<GenerationDefaults> load_generation_defaults(const std::string& folder) {
  GenerationDefaults defaults;
  const std::string path = folder + "/generation_config.json";
  absl::StatusOr<nlohmann::json> object = read_object(path);
  if (object.ok()) {
    JsonReader json(*object, path);
    json.ignore(kHarmlessKeys);
    read_sampling(json, defaults);
    defaults.eos_token_ids = json.ids("eos_token_id", kEosIdsMax);
    defaults.unused_keys = json.unread_keys();
    RETURN_IF_ERROR(json.status());
  } else if (!absl::IsNotFound(object.status())) {
    return object.status();
  }
  if (!defaults.eos_token_ids.empty()) return defaults;

  const std::string config_path = folder + "/config.json";
  ASSIGN_OR_RETURN(const nlohmann::json config, read_object(config_path));
  JsonReader json(config, config_path);
  defaults.eos_token_ids = json.ids("eos_token_id", kEosIdsMax);
  RETURN_IF_ERROR(json.status());
  return defaults;
}

}  // namespace pbserve::models
