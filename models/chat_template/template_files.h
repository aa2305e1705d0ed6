// The chat template and the special tokens in a model's folder, as transformers finds them.
#pragma once

#include <optional>
#include <string>

#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

struct TemplateFiles {
  std::string main;                     // source of the template
  std::optional<std::string> tool_use;  // of the one for requests with tools, if it is another
  Dict special_tokens;                  // bos_token and its like; those that are null are absent
};

// chat_template.jinja comes before the chat_template of tokenizer_config.json, which may be a
// list of named templates. kNotFound if there is neither.
absl::StatusOr<TemplateFiles> read_template_files(const std::string& folder);

}  // namespace pbserve::models::jinja
