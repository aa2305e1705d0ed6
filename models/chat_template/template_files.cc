#include "models/chat_template/template_files.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/chat_template/limits.h"

namespace pbserve::models::jinja {
namespace {

using Json = nlohmann::json;

constexpr size_t kConfigBytesMax = 64 << 20;  // the added tokens make it a few MB at most

// None if there is no such file.
absl::StatusOr<std::optional<std::string>> read_file(const std::string& path, size_t bytes_max) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::optional<std::string>();
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::InvalidArgumentError(path + ": " + error.message());
  if (size > bytes_max) {
    return absl::InvalidArgumentError(path + ": longer than the limit of " +
                                      std::to_string(bytes_max) + " bytes");
  }
  std::string text(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file) return absl::InvalidArgumentError(path + ": cannot be read");
  return std::optional(std::move(text));
}

// A token is a string, or an object that has it as "content".
absl::StatusOr<std::optional<std::string>> token_text(const Json& token, const std::string& key) {
  if (token.is_null()) return std::optional<std::string>();
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string()) {
    return token["content"].get<std::string>();
  }
  return absl::InvalidArgumentError("tokenizer_config.json: " + key +
                                    " is neither a string nor an object with content");
}

absl::Status read_special_tokens(const Json& config, Dict* tokens) {
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                          "cls_token", "mask_token"}) {
    if (!config.contains(key)) continue;
    ASSIGN_OR_RETURN(std::optional<std::string> text, token_text(config[key], key));
    if (text) tokens->set(Value(key), Value(*std::move(text)));
  }
  return absl::OkStatus();
}

absl::Status read_named_templates(const Json& list, TemplateFiles* files) {
  bool has_default = false;
  for (const Json& entry : list) {
    const bool well_formed = entry.is_object() && entry.contains("name") &&
                             entry["name"].is_string() && entry.contains("template") &&
                             entry["template"].is_string();
    if (!well_formed) {
      return absl::InvalidArgumentError(
          "tokenizer_config.json: chat_template is a list with an entry without name or template");
    }
    if (entry["name"] == "default") {
      files->main = entry["template"].get<std::string>();
      has_default = true;
    } else if (entry["name"] == "tool_use") {
      files->tool_use = entry["template"].get<std::string>();
    }
  }
  if (has_default) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "tokenizer_config.json: chat_template has no entry named default");
}

}  // namespace

absl::StatusOr<TemplateFiles> read_template_files(const std::string& folder) {
  TemplateFiles files;
  const std::string config_path = folder + "/tokenizer_config.json";
  ASSIGN_OR_RETURN(const std::optional<std::string> config_text,
                   read_file(config_path, kConfigBytesMax));
  const Json config = Json::parse(config_text.value_or("{}"), nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) {
    return absl::InvalidArgumentError(config_path + ": not a JSON object");
  }
  RETURN_IF_ERROR(read_special_tokens(config, &files.special_tokens));

  ASSIGN_OR_RETURN(std::optional<std::string> source,
                   read_file(folder + "/chat_template.jinja", kTemplateBytesMax));
  if (source) {
    files.main = *std::move(source);
    return files;
  }
  const Json chat_template = config.value("chat_template", Json());
  if (chat_template.is_null()) {
    return absl::NotFoundError(folder + ": no chat template in tokenizer_config.json, and no " +
                               "chat_template.jinja");
  }
  if (chat_template.is_string()) {
    files.main = chat_template.get<std::string>();
  } else if (chat_template.is_array()) {
    RETURN_IF_ERROR(read_named_templates(chat_template, &files));
  } else {
    return absl::InvalidArgumentError(config_path + ": chat_template is not a string or a list");
  }
  return files;
}

}  // namespace pbserve::models::jinja
