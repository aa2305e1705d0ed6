#include "models/config.h"

#include "models/catalog.h"
#include "models/config_fields.h"
#include "models/json_reader.h"
#include "models/message.h"

namespace pbserve::models {

namespace {

constexpr size_t kConfigBytesMax = 4 << 20;

absl::StatusOr<nlohmann::json> merged_config(std::string_view text, std::string_view overrides,
                                             std::string_view what) {
  ASSIGN_OR_RETURN(nlohmann::json config, parse_json(text, what));
  if (overrides.empty()) return config;
  constexpr std::string_view kOverrides = "--hf-overrides";
  ASSIGN_OR_RETURN(const nlohmann::json patch, parse_json(overrides, kOverrides));
  if (!patch.is_object()) {
    return invalid(kOverrides, ": expected a JSON object");
  }
  config.merge_patch(patch);
  return config;
}

const Architecture* read_architecture(JsonReader& json) {
  const nlohmann::json* names = json.find("architectures");
  if (names == nullptr || !names->is_array() || names->size() != 1 || !(*names)[0].is_string()) {
    json.fail("architectures", "is not a list of one name");
    return nullptr;
  }
  const std::string name = (*names)[0].get<std::string>();
  const Architecture* architecture = find_architecture(name);
  if (architecture == nullptr) {
    json.fail("architectures", message("names '", name, "', which is not supported: expected ",
                                       architecture_names()));
  }
  return architecture;
}

}  // namespace

absl::StatusOr<ModelConfig> parse_model_config(std::string_view text, std::string_view overrides,
                                               std::string_view what) {
  ASSIGN_OR_RETURN(const nlohmann::json merged, merged_config(text, overrides, what));
  JsonReader json(merged, std::string(what));
  const Architecture* architecture = read_architecture(json);
  if (architecture == nullptr) return json.status();

  ModelConfig config;
  config.architecture = architecture->name;
  architecture->read_config(json, config);
  if (config.head_dim % 16 != 0 || config.head_dim < kHeadDimRange.min ||
      config.head_dim > kHeadDimRange.max) {
    json.fail("head_dim", message("is ", config.head_dim, ", expected a multiple of 16 in [",
                                  kHeadDimRange.min, ", ", kHeadDimRange.max, "]"));
  }
  for (const std::string& key : json.unread_keys()) {
    json.fail(key, message("is not known and may change the arithmetic; if it does not, drop "
                           "it with --hf-overrides '{\"",
                           key, "\": null}'"));
  }
  if (!json.status().ok()) return json.status();
  return config;
}

absl::StatusOr<ModelConfig> load_model_config(const std::string& folder,
                                              const std::string& overrides) {
  const std::string path = folder + "/config.json";
  ASSIGN_OR_RETURN(const std::string text, read_file(path, kConfigBytesMax));
  return parse_model_config(text, overrides, path);
}

}  // namespace pbserve::models
