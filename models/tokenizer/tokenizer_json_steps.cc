#include "models/tokenizer/tokenizer_json_steps.h"

#include <utility>

#include "models/message.h"

namespace pbserve::models {

using nlohmann::json;

absl::Status unsupported(std::string_view where, std::string_view value) {
  return absl::UnimplementedError(message(where, ": ", value, " is not implemented"));
}

absl::Status finish(const JsonReader& reader) {
  RETURN_IF_ERROR(reader.status());
  const std::vector<std::string> unread = reader.unread_keys();
  if (unread.empty()) return absl::OkStatus();
  return unsupported(message(reader.what(), ".", unread.front()), "this key");
}

namespace {

std::string in_quotes(std::string_view name) { return message("'", name, "'"); }

// Calls `visit(element, its path)` for `value`, or for each member if it is a Sequence whose list
// is called `list_key`. Sequences nest at most as deep as parse_json lets them.
template <class Visit>
absl::Status for_each_step(const json& value, const std::string& where, const char* list_key,
                           const Visit& visit) {
  JsonReader reader(value, where);
  if (reader.string_or("type", "") != "Sequence") {
    RETURN_IF_ERROR(reader.status());
    return visit(value, where);
  }
  const json* list = reader.find(list_key);
  RETURN_IF_ERROR(finish(reader));
  if (list == nullptr || !list->is_array()) {
    return invalid(where, ".", list_key, ": expected a list");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = message(where, ".", list_key, "[", i, "]");
    RETURN_IF_ERROR(for_each_step((*list)[i], path, list_key, visit));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<NfcNormalizer>> read_normalizer(const json* value,
                                                             const std::string& where) {
  std::optional<NfcNormalizer> nfc;
  if (value == nullptr) return nfc;
  RETURN_IF_ERROR(for_each_step(*value, where, "normalizers",
                                [&](const json& step, const std::string& path) -> absl::Status {
                                  JsonReader reader(step, path);
                                  const std::string type = reader.string_or("type", "");
                                  if (type != "NFC")
                                    return unsupported(path + ".type", in_quotes(type));
                                  if (!nfc) nfc.emplace();
                                  return finish(reader);
                                }));
  return nfc;
}

namespace {

absl::StatusOr<SplitBehavior> read_behavior(JsonReader& reader) {
  const std::string name = reader.string_or("behavior", "");
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return unsupported(reader.what() + ".behavior", in_quotes(name));
}

absl::StatusOr<Regex> read_pattern(JsonReader& reader) {
  const std::string where = reader.what() + ".pattern";
  const json* value = reader.find("pattern");
  if (value == nullptr) return invalid(where + ": is missing");
  JsonReader pattern(*value, where);
  const std::string regex = pattern.string_or("Regex", "");
  const std::string literal = pattern.string_or("String", "");
  RETURN_IF_ERROR(finish(pattern));
  if (regex.empty() == literal.empty()) {
    return invalid(where, ": expected a Regex or a String");
  }
  absl::StatusOr<Regex> compiled = regex.empty() ? Regex::literal(literal) : Regex::compile(regex);
  if (compiled.ok()) return compiled;
  return absl::Status(compiled.status().code(), message(where, ": ", compiled.status().message()));
}

absl::Status read_split(JsonReader& reader, Pretokenizer* out) {
  ASSIGN_OR_RETURN(Regex regex, read_pattern(reader));
  ASSIGN_OR_RETURN(const SplitBehavior behavior, read_behavior(reader));
  out->add_split({std::move(regex), behavior, reader.boolean_or("invert", false)});
  return finish(reader);
}

absl::Status read_digits(JsonReader& reader, Pretokenizer* out) {
  ASSIGN_OR_RETURN(Regex regex, Regex::compile(R"(\p{N})"));
  const bool individual = reader.boolean_or("individual_digits", false);
  out->add_split(
      {std::move(regex), individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
  return finish(reader);
}

absl::Status read_byte_level(JsonReader& reader, Pretokenizer* out) {
  if (reader.boolean_or("add_prefix_space", true)) out->add_prefix_space();
  if (reader.boolean_or("use_regex", true)) {
    ASSIGN_OR_RETURN(SplitStep split, Pretokenizer::gpt2_split());
    out->add_split(std::move(split));
  }
  reader.boolean_or("trim_offsets", true);  // offsets are not computed
  return finish(reader);
}

}  // namespace

absl::StatusOr<Pretokenizer> read_pretokenizer(const json* value, const std::string& where) {
  Pretokenizer pretokenizer;
  bool is_byte_level = false;
  const auto read_step = [&](const json& step, const std::string& path) -> absl::Status {
    JsonReader reader(step, path);
    const std::string type = reader.string_or("type", "");
    if (is_byte_level) return unsupported(path, "a step behind ByteLevel");
    if (type == "Split") return read_split(reader, &pretokenizer);
    if (type == "Digits") return read_digits(reader, &pretokenizer);
    if (type != "ByteLevel") return unsupported(path + ".type", in_quotes(type));
    is_byte_level = true;
    return read_byte_level(reader, &pretokenizer);
  };
  if (value != nullptr) RETURN_IF_ERROR(for_each_step(*value, where, "pretokenizers", read_step));
  if (!is_byte_level) return unsupported(where, "a pre_tokenizer without ByteLevel");
  return pretokenizer;
}

namespace {

// The ids of one special token of a template.
absl::StatusOr<std::vector<int32_t>> read_special_ids(const json* tokens, const std::string& where,
                                                      const std::string& name, int32_t vocab_size) {
  const std::string path = message(where, ".special_tokens.", name);
  if (tokens == nullptr || !tokens->is_object() || !tokens->contains(name)) {
    return invalid(path, ": is missing");
  }
  JsonReader reader((*tokens)[name], path);
  constexpr std::string_view kIgnored[] = {"id", "tokens"};
  reader.ignore(kIgnored);
  const json* list = reader.find("ids");
  RETURN_IF_ERROR(finish(reader));
  if (list == nullptr || !list->is_array()) {
    return invalid(path, ".ids: expected a list");
  }
  std::vector<int32_t> ids;
  for (const json& id : *list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size)) {
      return invalid(path, ".ids: expected ids below ", vocab_size);
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

absl::StatusOr<AddedIds> read_template(JsonReader& reader, int32_t vocab_size) {
  const std::string where = reader.what() + ".single";
  const json* pieces = reader.find("single");
  const json* tokens = reader.find("special_tokens");
  constexpr std::string_view kIgnored[] = {"pair"};  // one text at a time
  reader.ignore(kIgnored);
  RETURN_IF_ERROR(finish(reader));
  if (pieces == nullptr || !pieces->is_array()) {
    return invalid(where, ": expected a list");
  }
  AddedIds added;
  size_t num_sequences = 0;
  for (size_t i = 0; i < pieces->size(); ++i) {
    const std::string path = message(where, "[", i, "]");
    JsonReader piece((*pieces)[i], path);
    const json* sequence = piece.find("Sequence");
    const json* special = piece.find("SpecialToken");
    RETURN_IF_ERROR(finish(piece));
    if ((sequence == nullptr) == (special == nullptr)) {
      return invalid(path, ": expected a Sequence or a SpecialToken");
    }
    JsonReader body(sequence != nullptr ? *sequence : *special, path);
    constexpr std::string_view kTypeId[] = {"type_id"};  // token types are not fed to the network
    body.ignore(kTypeId);
    const std::string id = body.string_or("id", "");
    RETURN_IF_ERROR(finish(body));
    if (sequence != nullptr) {
      if (id != "A") return unsupported(path + ".Sequence.id", in_quotes(id));
      ++num_sequences;
      continue;
    }
    ASSIGN_OR_RETURN(const auto ids, read_special_ids(tokens, reader.what(), id, vocab_size));
    auto& side = num_sequences == 0 ? added.prefix : added.suffix;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (num_sequences != 1) return unsupported(where, "a template without exactly one sequence");
  return added;
}

}  // namespace

absl::StatusOr<AddedIds> read_post_processor(const json* value, const std::string& where,
                                             int32_t vocab_size) {
  AddedIds added;
  if (value == nullptr) return added;
  RETURN_IF_ERROR(for_each_step(
      *value, where, "processors", [&](const json& step, const std::string& path) -> absl::Status {
        JsonReader reader(step, path);
        const std::string type = reader.string_or("type", "");
        if (type == "ByteLevel") return absl::OkStatus();
        if (type != "TemplateProcessing") return unsupported(path + ".type", in_quotes(type));
        ASSIGN_OR_RETURN(const AddedIds outer, read_template(reader, vocab_size));
        added.prefix.insert(added.prefix.begin(), outer.prefix.begin(), outer.prefix.end());
        added.suffix.insert(added.suffix.end(), outer.suffix.begin(), outer.suffix.end());
        return absl::OkStatus();
      }));
  return added;
}

absl::Status check_decoder(const json* value, const std::string& where) {
  if (value == nullptr) return unsupported(where, "no decoder");
  return for_each_step(*value, where, "decoders",
                       [](const json& step, const std::string& path) -> absl::Status {
                         JsonReader reader(step, path);
                         const std::string type = reader.string_or("type", "");
                         if (type == "ByteLevel") return absl::OkStatus();
                         return unsupported(path + ".type", in_quotes(type));
                       });
}

}  // namespace pbserve::models
