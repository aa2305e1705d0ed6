#include "models/tokenizer/sentencepiece_config.h"

#include <charconv>

#include "models/json_reader.h"
#include "models/message.h"

namespace pbserve::models {
namespace {

using nlohmann::json;

constexpr int32_t kIdMax = (1 << 22) - 1;
constexpr size_t kAddedTokenBytesMax = 1024;

// "<s>" or {"content": "<s>", ...}
std::string read_token(JsonReader& config, std::string_view key) {
  const json* value = config.find(key);
  if (value == nullptr || !value->is_object()) return config.string_or(key, "");
  JsonReader token(*value, message(config.what(), ": ", key));
  std::string content = token.string_or("content", "");
  config.fail(token.status());
  return content;
}

absl::StatusOr<AddedToken> read_added_token(const std::string& id_text, const json& value,
                                            const std::string& where) {
  JsonReader reader(value, where);
  // LlamaTokenizer looks for added tokens in the text as it came, whatever `normalized` says.
  AddedToken token{.content = reader.string_or("content", ""),
                   .single_word = reader.boolean_or("single_word", false),
                   .lstrip = reader.boolean_or("lstrip", false),
                   .rstrip = reader.boolean_or("rstrip", false),
                   .special = reader.boolean_or("special", false)};
  const char* end = id_text.data() + id_text.size();
  const auto [parsed_to, error] = std::from_chars(id_text.data(), end, token.id);
  if (error != std::errc() || parsed_to != end || token.id < 0 || token.id > kIdMax) {
    return invalid(where, ": the key is not an id in [0, ", kIdMax, "]");
  }
  if (token.content.empty() || token.content.size() > kAddedTokenBytesMax) {
    reader.fail("content", message("has ", token.content.size(), " bytes, expected 1 to ",
                                   kAddedTokenBytesMax));
  }
  RETURN_IF_ERROR(reader.status());
  return token;
}

void refuse_other_tokenizers(JsonReader& config) {
  const std::string name = config.string_or("tokenizer_class", "LlamaTokenizer");
  if (name != "LlamaTokenizer" && name != "LlamaTokenizerFast") {
    config.fail("tokenizer_class", message("is '", name, "', expected LlamaTokenizer"));
  }
  config.require_neutral("legacy", true);            // false: no prefix space behind added tokens
  config.require_neutral("add_prefix_space", true);  // false: none at the beginning
  config.require_neutral("sp_model_kwargs", json::object());
}

}  // namespace

absl::StatusOr<SentencePieceConfig> read_sentencepiece_config(std::string_view text,
                                                              const std::string& what) {
  ASSIGN_OR_RETURN(const json root, parse_json(text, what));
  JsonReader reader(root, what);
  refuse_other_tokenizers(reader);
  SentencePieceConfig config{.add_bos = reader.boolean_or("add_bos_token", true),
                             .add_eos = reader.boolean_or("add_eos_token", false),
                             .bos_token = read_token(reader, "bos_token"),
                             .eos_token = read_token(reader, "eos_token")};
  const json* added = reader.find("added_tokens_decoder");
  if (added != nullptr && !added->is_object()) {
    reader.fail("added_tokens_decoder", "is not an object");
  }
  RETURN_IF_ERROR(reader.status());
  if (added == nullptr) return config;
  for (const auto& [id, value] : added->items()) {
    const std::string where = message(what, ": added_tokens_decoder.", id);
    ASSIGN_OR_RETURN(AddedToken token, read_added_token(id, value, where));
    config.added_tokens.push_back(std::move(token));
  }
  return config;
}

}  // namespace pbserve::models
