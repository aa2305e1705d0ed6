#include "server/config/model_folder.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pbserve::server {
namespace {

// "Qwen/Qwen3-8B": an owner and a name, of the letters that the hub allows.
bool is_hub_name(absl::string_view path) {
  const size_t slash = path.find('/');
  if (slash == 0 || slash == absl::string_view::npos || slash + 1 == path.size()) return false;
  const auto is_allowed = [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  };
  const absl::string_view name = path.substr(slash + 1);
  return path.front() != '.' && std::all_of(path.begin(), path.begin() + slash, is_allowed) &&
         std::all_of(name.begin(), name.end(), is_allowed);
}

}  // namespace

absl::Status check_model_folder(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at is not found
  const auto status = std::filesystem::status(path, ignored);
  if (std::filesystem::is_directory(status)) return absl::OkStatus();
  if (std::filesystem::exists(status)) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.path = ", path,
                     ": is a file; a Hugging Face folder with config.json, tokenizer.json and "
                     "*.safetensors is needed"));
  }
  std::string text = absl::StrCat("model.path = ", path, ": there is no such folder");
  if (is_hub_name(path)) {
    const std::string folder = path.substr(path.find('/') + 1);
    absl::StrAppend(&text, ", and this server downloads nothing; get it with: hf download ", path,
                    " --local-dir ", folder, " (pip install huggingface_hub), then --model ",
                    folder);
  }
  return absl::NotFoundError(text);
}

}  // namespace pbserve::server
