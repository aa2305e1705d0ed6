#include "models/tokenizer/tokenizer.h"

#include <filesystem>
#include <utility>

#include "models/json_reader.h"
#include "models/message.h"
#include "models/tokenizer/sentencepiece.h"
#include "models/tokenizer/stream_decoder.h"
#include "models/tokenizer/tokenizer_json.h"
#include "models/tokenizer/utf8.h"

namespace pbserve::models {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& folder) {
  const std::string json_path = folder + "/tokenizer.json";
  const std::string model_path = folder + "/tokenizer.model";
  std::error_code unused;
  const bool has_json = std::filesystem::exists(json_path, unused);
  const bool has_model = std::filesystem::exists(model_path, unused);
  if (!has_json && !has_model) {
    return absl::NotFoundError(
        message(folder, ": neither tokenizer.json nor tokenizer.model is there"));
  }
  if (!has_json) return load_sentencepiece(folder);
  ASSIGN_OR_RETURN(const std::string text, read_file(json_path, kTokenizerJsonBytesMax));
  ASSIGN_OR_RETURN(const nlohmann::json root, parse_json(text, json_path));
  if (has_model && is_sentencepiece_conversion(root)) return load_sentencepiece(folder);
  return tokenizer_from_json(root, json_path);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  StreamDecoder decoder(*this, skip_special_tokens);
  std::string text;
  for (int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

absl::Status Tokenizer::check_text(std::string_view text) {
  if (text.size() > kTextBytesMax) {
    return invalid("text of ", text.size(), " bytes, the limit is ", kTextBytesMax);
  }
  if (const size_t offset = find_invalid_utf8(text); offset != std::string_view::npos) {
    return invalid("text is not valid UTF-8 at byte ", offset);
  }
  return absl::OkStatus();
}

}  // namespace pbserve::models
