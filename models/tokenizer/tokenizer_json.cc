#include "models/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "models/message.h"
#include "models/tokenizer/bpe_tokenizer.h"
#include "models/tokenizer/byte_level.h"
#include "models/tokenizer/tokenizer_json_steps.h"

namespace pbserve::models {
namespace {

using nlohmann::json;

constexpr int64_t kIdMax = (int64_t{1} << 22) - 1;  // published vocabularies end near 2^18
constexpr size_t kAddedTokenBytesMax = 1024;        // a finder's step costs up to this

absl::StatusOr<TokenMap> read_vocab(JsonReader& model) {
  const std::string where = model.what() + ".vocab";
  const json* vocab = model.find("vocab");
  if (vocab == nullptr || !vocab->is_object() || vocab->empty()) {
    return invalid(where, ": expected an object with tokens");
  }
  TokenMap ids;
  ids.reserve(vocab->size());
  absl::flat_hash_set<int32_t> seen;
  for (const auto& [token, id] : vocab->items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > static_cast<uint64_t>(kIdMax)) {
      return invalid(where, ".", token, ": expected an id in [0, ", kIdMax, "]");
    }
    if (!seen.insert(id.get<int32_t>()).second) {
      return invalid(where, ".", token, ": id ", id.get<int32_t>(), " appears twice");
    }
    ids.emplace(token, id.get<int32_t>());
  }
  return ids;
}

// One merge in either spelling: "a b" or ["a", "b"].
bool split_merge(const json& value, std::string* left, std::string* right) {
  if (value.is_array()) {
    if (value.size() != 2 || !value[0].is_string() || !value[1].is_string()) return false;
    *left = value[0].get<std::string>();
    *right = value[1].get<std::string>();
    return true;
  }
  if (!value.is_string()) return false;
  const std::string& text = value.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return false;
  *left = text.substr(0, space);
  *right = text.substr(space + 1);
  return true;
}

absl::StatusOr<std::vector<Bpe::Merge>> read_merges(JsonReader& model, const TokenMap& vocab) {
  const json* list = model.find("merges");
  if (list == nullptr || !list->is_array()) {
    return invalid(model.what(), ".merges: expected a list");
  }
  std::vector<Bpe::Merge> merges;
  merges.reserve(list->size());
  std::string left;
  std::string right;
  for (size_t i = 0; i < list->size(); ++i) {
    const auto where = [&] { return message(model.what(), ".merges[", i, "]"); };
    if (!split_merge((*list)[i], &left, &right)) {
      return invalid(where(), ": expected two tokens");
    }
    const auto left_id = vocab.find(left);
    const auto right_id = vocab.find(right);
    const auto merged_id = vocab.find(left + right);
    if (left_id == vocab.end() || right_id == vocab.end() || merged_id == vocab.end()) {
      return invalid(where(), ": '", left, "', '", right,
                     "' or both together are not in the vocabulary");
    }
    merges.push_back({left_id->second, right_id->second, merged_id->second});
  }
  return merges;
}

// Fields of the model that this tokenizer has only one value for.
absl::Status check_model_fields(JsonReader& model) {
  const std::string type = model.string_or("type", "BPE");
  if (type != "BPE") return unsupported(model.what() + ".type", message("'", type, "'"));
  model.require_neutral("dropout", 0.0);
  model.require_neutral("continuing_subword_prefix", "");
  model.require_neutral("end_of_word_suffix", "");
  model.require_neutral("byte_fallback", false);
  return model.status();
}

bool read_flag(JsonReader& reader, std::string_view key) {
  if (!reader.has(key)) reader.fail(key, "is missing");
  return reader.boolean_or(key, false);
}

absl::StatusOr<AddedToken> read_added_token(const json& value, const std::string& where) {
  JsonReader reader(value, where);
  AddedToken token{.id = static_cast<int32_t>(reader.integer("id", {0, kIdMax})),
                   .content = reader.string_or("content", ""),
                   .single_word = read_flag(reader, "single_word"),
                   .lstrip = read_flag(reader, "lstrip"),
                   .rstrip = read_flag(reader, "rstrip"),
                   .normalized = read_flag(reader, "normalized"),
                   .special = read_flag(reader, "special")};
  if (token.content.empty() || token.content.size() > kAddedTokenBytesMax) {
    reader.fail("content", message("has ", token.content.size(), " bytes, expected 1 to ",
                                   kAddedTokenBytesMax));
  }
  RETURN_IF_ERROR(finish(reader));
  return token;
}

// Contents come back as they are matched. The `tokenizers` package numbers added tokens itself
// (their id in the vocabulary, else the next free one): a file that says otherwise is refused.
absl::StatusOr<std::vector<AddedToken>> read_added_tokens(const json* list,
                                                          const std::string& where,
                                                          const std::optional<NfcNormalizer>& nfc,
                                                          const TokenMap& vocab,
                                                          TokenMap* token_ids) {
  std::vector<AddedToken> tokens;
  if (list == nullptr) return tokens;
  if (!list->is_array()) return invalid(where + ": expected a list");
  absl::flat_hash_set<std::string> raw_contents;
  absl::flat_hash_set<std::string> normalized_contents;
  auto next_id = static_cast<int32_t>(vocab.size());
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = message(where, "[", i, "]");
    ASSIGN_OR_RETURN(AddedToken token, read_added_token((*list)[i], path));
    const auto known = vocab.find(token.content);
    const int32_t id = known != vocab.end() ? known->second : next_id++;
    if (id != token.id) {
      return unsupported(path + ".id", message(token.id, " for '", token.content,
                                               "', where the vocabulary gives ", id, ","));
    }
    (*token_ids)[token.content] = id;
    if (token.normalized && nfc) {
      std::string buffer;
      token.content = std::string(nfc->normalize(token.content, &buffer));
    }
    auto& contents = token.normalized ? normalized_contents : raw_contents;
    if (!contents.insert(token.content).second) {
      return invalid(path, ".content: '", token.content, "' appears twice");
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::string bytes_of(const std::string& token) { return byte_level_decode(token).value_or(token); }

// The bytes of every id, from the vocabulary and then from the added tokens.
std::vector<std::string> collect_bytes(const TokenMap& vocab,
                                       const std::vector<AddedToken>& added_tokens) {
  int32_t id_max = 0;
  for (const auto& [token, id] : vocab) id_max = std::max(id_max, id);
  for (const AddedToken& token : added_tokens) id_max = std::max(id_max, token.id);
  std::vector<std::string> bytes(static_cast<size_t>(id_max) + 1);
  for (const auto& [token, id] : vocab) bytes[static_cast<size_t>(id)] = bytes_of(token);
  for (const AddedToken& token : added_tokens) {
    bytes[static_cast<size_t>(token.id)] = bytes_of(token.content);
  }
  return bytes;
}

// What stands for bytes without a token, as the `tokenizers` package has it: unk_token, or nothing.
absl::StatusOr<std::optional<int32_t>> read_unknown_id(JsonReader& model, const TokenMap& vocab) {
  const std::string token = model.string_or("unk_token", "");
  const bool is_fused = model.boolean_or("fuse_unk", false);
  RETURN_IF_ERROR(model.status());
  bool has_all_bytes = true;
  for (unsigned byte = 0; byte < 256; ++byte) {
    has_all_bytes &= vocab.contains(byte_level_encode(static_cast<unsigned char>(byte)));
  }
  if (has_all_bytes || token.empty()) return std::nullopt;
  if (is_fused) return unsupported(model.what() + ".fuse_unk", "true");
  const auto found = vocab.find(token);
  if (found != vocab.end()) return found->second;
  return invalid(model.what(), ".unk_token: '", token, "' is not in the vocabulary");
}

absl::StatusOr<Bpe> read_bpe(JsonReader& model, const TokenMap& vocab) {
  Bpe::Spec spec;
  spec.ignore_merges = model.boolean_or("ignore_merges", false);
  ASSIGN_OR_RETURN(spec.unknown_id, read_unknown_id(model, vocab));
  ASSIGN_OR_RETURN(spec.merges, read_merges(model, vocab));
  RETURN_IF_ERROR(finish(model));
  spec.vocab.reserve(vocab.size());
  for (const auto& [token, id] : vocab) {
    // Tokens spelled outside the byte alphabet cannot come out of text.
    if (auto bytes = byte_level_decode(token)) spec.vocab.emplace(*std::move(bytes), id);
  }
  return Bpe(std::move(spec));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer_from_json(const json& root,
                                                               const std::string& what) {
  JsonReader file(root, what);
  if (const std::string version = file.string_or("version", ""); version != "1.0") {
    file.fail("version", message("is '", version, "', expected '1.0'"));
  }
  file.require_neutral("truncation", nullptr);
  file.require_neutral("padding", nullptr);
  const json* added_tokens = file.find("added_tokens");
  const json* normalizer = file.find("normalizer");
  const json* pretokenizer = file.find("pre_tokenizer");
  const json* post_processor = file.find("post_processor");
  const json* decoder = file.find("decoder");
  const json* model_value = file.find("model");
  RETURN_IF_ERROR(finish(file));
  const auto path = [&](std::string_view key) { return message(what, ": ", key); };
  if (model_value == nullptr) return invalid(path("model: is missing"));

  JsonReader model(*model_value, path("model"));
  RETURN_IF_ERROR(check_model_fields(model));
  ASSIGN_OR_RETURN(const TokenMap vocab, read_vocab(model));
  ASSIGN_OR_RETURN(Bpe bpe, read_bpe(model, vocab));

  BpeTokenizer::Parts parts(std::move(bpe));
  parts.token_ids = vocab;
  ASSIGN_OR_RETURN(parts.nfc, read_normalizer(normalizer, path("normalizer")));
  ASSIGN_OR_RETURN(parts.pretokenizer, read_pretokenizer(pretokenizer, path("pre_tokenizer")));
  ASSIGN_OR_RETURN(parts.added_tokens, read_added_tokens(added_tokens, path("added_tokens"),
                                                         parts.nfc, vocab, &parts.token_ids));
  parts.token_bytes = collect_bytes(vocab, parts.added_tokens);
  ASSIGN_OR_RETURN(AddedIds ids,
                   read_post_processor(post_processor, path("post_processor"),
                                       static_cast<int32_t>(parts.token_bytes.size())));
  parts.prefix_ids = std::move(ids.prefix);
  parts.suffix_ids = std::move(ids.suffix);
  RETURN_IF_ERROR(check_decoder(decoder, path("decoder")));
  return std::make_unique<BpeTokenizer>(std::move(parts));
}

bool is_sentencepiece_conversion(const json& root) {
  if (!root.is_object() || !root.contains("model") || !root["model"].is_object()) return false;
  const json& model = root["model"];
  return model.contains("byte_fallback") && model["byte_fallback"] == true;
}

}  // namespace pbserve::models
