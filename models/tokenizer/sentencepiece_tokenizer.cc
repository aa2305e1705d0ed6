#include "models/tokenizer/sentencepiece_tokenizer.h"

#include <charconv>
#include <limits>
#include <span>
#include <utility>

#include "models/message.h"

namespace pbserve::models {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, how pieces spell a space

// Whether no piece reaches over the beginning of a word, so that words can be encoded one by one:
// BPE merges depend on nothing else then. (Unigram models sum scores over the whole text.)
bool encodes_word_by_word(const SentencePieceModule& library, const SentencePieceSpec& spec) {
  if (!spec.is_bpe || spec.has_charsmap || !spec.add_dummy_prefix ||
      spec.remove_extra_whitespaces) {
    return false;
  }
  if (library.find(kSpaceMark) < 0) return false;
  for (int32_t id = 0; id < library.num_pieces(); ++id) {
    std::string_view piece = library.piece(id);
    while (piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
    if (piece.find(kSpaceMark) != piece.npos || piece.find(' ') != piece.npos) return false;
  }
  return true;
}

// The text of one piece, as decoding in the library has it, but with control tokens spelled out.
std::string bytes_of_piece(const SentencePieceModule& library, int32_t id) {
  std::string_view piece = library.piece(id);
  if (library.is_control(id)) return std::string(piece);
  if (id == library.unknown_id()) return library.unknown_text();
  if (library.is_byte(id)) {  // "<0xE2>"
    unsigned byte = 0;
    const std::string_view digits = piece.substr(3, 2);
    std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    return std::string(1, static_cast<char>(byte));
  }
  std::string bytes;
  while (!piece.empty()) {
    const bool is_space = piece.starts_with(kSpaceMark);
    bytes.push_back(is_space ? ' ' : piece.front());
    piece.remove_prefix(is_space ? kSpaceMark.size() : 1);
  }
  return bytes;
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(Parts parts)
    : library_(std::move(parts.module)),
      word_by_word_(encodes_word_by_word(*library_, parts.spec)),
      added_tokens_(parts.added_tokens),
      prefix_ids_(std::move(parts.prefix_ids)),
      suffix_ids_(std::move(parts.suffix_ids)) {
  rules_.replace_each_byte = true;
  if (parts.spec.add_dummy_prefix) rules_.leading_spaces_dropped = 1;
  if (parts.spec.remove_extra_whitespaces) {
    rules_.leading_spaces_dropped = std::numeric_limits<size_t>::max();
  }
  collect_tokens(parts.added_tokens);
}

void SentencePieceTokenizer::collect_tokens(const std::vector<AddedToken>& added_tokens) {
  const int num_pieces = library_->num_pieces();
  for (int id = 0; id < num_pieces; ++id) {
    token_bytes_.push_back(bytes_of_piece(*library_, id));
    token_ids_.emplace(library_->piece(id), id);
  }
  for (const AddedToken& token : added_tokens) {
    const auto end = static_cast<size_t>(token.id) + 1;
    if (end > token_bytes_.size()) token_bytes_.resize(end);
    if (token.id >= num_pieces) token_bytes_[end - 1] = token.content;
    token_ids_.emplace(token.content, token.id);
  }
  special_.resize(token_bytes_.size(), false);
  for (const AddedToken& token : added_tokens) {
    special_[static_cast<size_t>(token.id)] = token.special;
  }
}

absl::StatusOr<std::vector<int32_t>> SentencePieceTokenizer::encode(std::string_view text,
                                                                    EncodeOptions options) const {
  RETURN_IF_ERROR(check_text(text));
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = prefix_ids_;
  ScratchPool<WordCache>::Lease words(caches_);
  RETURN_IF_ERROR(added_tokens_.split(
      text, {.find_special = options.parse_special_tokens, .content = options.content},
      [&](std::string_view piece, std::optional<int32_t> id) {
        if (!id) return encode_text(piece, *words, &ids);
        ids.push_back(*id);
        return absl::OkStatus();
      }));
  if (options.add_special_tokens) {
    ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  }
  return ids;
}

std::string SentencePieceTokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? token_bytes_[static_cast<size_t>(id)] : std::string();
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)];
}

bool SentencePieceTokenizer::keeps_leading_space(int32_t id) const {
  return id < 0 || id >= library_->num_pieces() || !library_->piece(id).starts_with(kSpaceMark);
}

std::optional<int32_t> SentencePieceTokenizer::token_id(std::string_view token) const {
  const auto found = token_ids_.find(token);
  if (found == token_ids_.end()) return std::nullopt;
  return found->second;
}

absl::Status SentencePieceTokenizer::encode_text(std::string_view text, WordCache& words,
                                                 std::vector<int32_t>* ids) const {
  if (!word_by_word_) return encode_whole(text, ids);
  // A word begins at a space behind something else. The library puts a space before whatever it
  // is given, so the word's own space is left out; the last space of a text has no word.
  size_t begin = 0;
  for (size_t at = 1; at + 1 < text.size(); ++at) {
    if (text[at] != ' ' || text[at - 1] == ' ') continue;
    if (text.substr(0, at).ends_with(kSpaceMark)) continue;
    RETURN_IF_ERROR(encode_word(text.substr(begin, at - begin), words, ids));
    begin = at + 1;
  }
  return encode_word(text.substr(begin), words, ids);
}

absl::Status SentencePieceTokenizer::encode_word(std::string_view word, WordCache& words,
                                                 std::vector<int32_t>* ids) const {
  if (words.lookup(word, ids)) return absl::OkStatus();
  const size_t before = ids->size();
  RETURN_IF_ERROR(encode_whole(word, ids));
  words.insert(word, std::span<const int32_t>(*ids).subspan(before));
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::encode_whole(std::string_view text,
                                                  std::vector<int32_t>* ids) const {
  const std::string error = library_->encode(text, ids);
  if (!error.empty()) return absl::InternalError(message("sentencepiece: ", error));
  return absl::OkStatus();
}

}  // namespace pbserve::models
