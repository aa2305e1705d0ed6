#include "models/tokenizer/sentencepiece.h"

#include <filesystem>
#include <utility>

#include "models/json_reader.h"
#include "models/message.h"
#include "models/tokenizer/sentencepiece_config.h"
#include "models/tokenizer/sentencepiece_tokenizer.h"

namespace pbserve::models {
namespace {

constexpr size_t kConfigBytesMax = size_t{16} << 20;

absl::Status check_spec(const SentencePieceSpec& spec, const std::string& what) {
  const auto refuse = [&](std::string_view field) {
    return absl::UnimplementedError(message(what, ": ", field, " is not implemented"));
  };
  if (spec.treat_whitespace_as_suffix) {
    return refuse("trainer_spec.treat_whitespace_as_suffix: true");
  }
  if (!spec.escape_whitespaces) return refuse("normalizer_spec.escape_whitespaces: false");
  if (spec.has_denormalizer) return refuse("denormalizer_spec.precompiled_charsmap");
  return absl::OkStatus();
}

// Control pieces and the configuration's tokens; the latter's word counts for the same id.
absl::StatusOr<std::vector<AddedToken>> collect_added_tokens(const SentencePieceModule& library,
                                                             const SentencePieceConfig& config,
                                                             const std::string& what) {
  absl::flat_hash_map<std::string, AddedToken> by_content;
  for (int id = 0; id < library.num_pieces(); ++id) {
    if (!library.is_control(id)) continue;
    const std::string content(library.piece(id));
    by_content[content] = {.id = id, .content = content, .special = true};
  }
  absl::flat_hash_map<int32_t, std::string> contents;
  for (const AddedToken& token : config.added_tokens) {
    const bool is_piece = token.id < library.num_pieces();
    const auto [other, inserted] = contents.try_emplace(token.id, token.content);
    if (!inserted || (is_piece && library.piece(token.id) != token.content)) {
      return invalid(what, ": added_tokens_decoder.", token.id, ": '", token.content,
                     "' is not what the model calls this id");
    }
    by_content[token.content] = token;
  }
  std::vector<AddedToken> tokens;
  for (auto& [content, token] : by_content) tokens.push_back(std::move(token));
  return tokens;
}

// The id of a begin or end token: the configuration's if it names one, else the model's.
absl::StatusOr<int32_t> find_id(const SentencePieceTokenizer::Parts& parts, const std::string& name,
                                int32_t own_id, const std::string& where) {
  int32_t id = own_id;
  if (!name.empty()) {
    id = parts.module->find(name);
    for (const AddedToken& token : parts.added_tokens) {
      if (token.content == name) id = token.id;
    }
  }
  if (id >= 0) return id;
  return invalid(where, ": the model has no such token");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> load_sentencepiece(const std::string& folder) {
  const std::string config_path = folder + "/tokenizer_config.json";
  ASSIGN_OR_RETURN(const std::string model,
                   read_file(folder + "/tokenizer.model", kSentencePieceBytesMax));
  std::string config;
  std::error_code unused;
  if (std::filesystem::exists(config_path, unused)) {
    ASSIGN_OR_RETURN(config, read_file(config_path, kConfigBytesMax));
  }
  return sentencepiece_from_files({.model = model, .config = config}, folder);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> sentencepiece_from_files(const SentencePieceFiles& files,
                                                                    const std::string& folder) {
  const std::string model_path = folder + "/tokenizer.model";
  const std::string config_path = folder + "/tokenizer_config.json";
  SentencePieceConfig config;
  if (!files.config.empty()) {
    ASSIGN_OR_RETURN(config, read_sentencepiece_config(files.config, config_path));
  }
  SentencePieceTokenizer::Parts parts;
  ASSIGN_OR_RETURN(parts.module, open_sentencepiece());
  if (const std::string error = parts.module->load(files.model); !error.empty()) {
    return invalid(model_path, ": ", error);
  }
  ASSIGN_OR_RETURN(parts.spec, read_sentencepiece_spec(files.model));
  RETURN_IF_ERROR(check_spec(parts.spec, model_path));
  ASSIGN_OR_RETURN(parts.added_tokens, collect_added_tokens(*parts.module, config, config_path));
  if (config.add_bos) {
    ASSIGN_OR_RETURN(const int32_t id, find_id(parts, config.bos_token, parts.module->bos_id(),
                                               config_path + ": bos_token"));
    parts.prefix_ids.push_back(id);
  }
  if (config.add_eos) {
    ASSIGN_OR_RETURN(const int32_t id, find_id(parts, config.eos_token, parts.module->eos_id(),
                                               config_path + ": eos_token"));
    parts.suffix_ids.push_back(id);
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(parts));
}

}  // namespace pbserve::models
