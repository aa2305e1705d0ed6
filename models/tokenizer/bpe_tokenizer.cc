#include "models/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <span>
#include <utility>

#include "models/message.h"
#include "models/tokenizer/utf8.h"

namespace pbserve::models {

namespace {

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> selected;
  for (const AddedToken& token : tokens) {
    if (token.normalized == normalized) selected.push_back(token);
  }
  return selected;
}

// Those of `spans` that reach into [offset, offset + size), cut to it and counted from its start.
std::vector<TextSpan> spans_within(std::span<const TextSpan> spans, size_t offset, size_t size) {
  std::vector<TextSpan> within;
  auto span = std::upper_bound(spans.begin(), spans.end(), offset,
                               [](size_t at, const TextSpan& other) { return at < other.end; });
  for (; span != spans.end() && span->begin < offset + size; ++span) {
    within.push_back({.begin = std::max(span->begin, offset) - offset,
                      .end = std::min(span->end - offset, size)});
  }
  return within;
}

}  // namespace

void BpeTokenizer::Scratch::release_if_large() {
  constexpr size_t kKeptBytes = size_t{1} << 20;
  bpe.release_if_large();
  if (normalized.capacity() > kKeptBytes) normalized = {};
}

BpeTokenizer::BpeTokenizer(Parts parts)
    : raw_tokens_(select(parts.added_tokens, false)),
      normalized_tokens_(select(parts.added_tokens, true)),
      nfc_(std::move(parts.nfc)),
      pretokenizer_(std::move(parts.pretokenizer)),
      bpe_(std::move(parts.bpe)),
      prefix_ids_(std::move(parts.prefix_ids)),
      suffix_ids_(std::move(parts.suffix_ids)),
      token_bytes_(std::move(parts.token_bytes)),
      special_(token_bytes_.size(), false),
      token_ids_(std::move(parts.token_ids)) {
  for (const AddedToken& token : parts.added_tokens) {
    if (token.special) special_[static_cast<size_t>(token.id)] = true;
  }
}

absl::StatusOr<std::vector<int32_t>> BpeTokenizer::encode(std::string_view text,
                                                          EncodeOptions options) const {
  RETURN_IF_ERROR(check_text(text));
  constexpr size_t kBytesPerToken = 4;  // of English; a guess that saves most of the growing
  std::vector<int32_t> ids;
  ids.reserve(text.size() / kBytesPerToken + prefix_ids_.size() + suffix_ids_.size());
  if (options.add_special_tokens) ids = prefix_ids_;
  ScratchPool<Scratch>::Lease scratch(scratch_pool_);
  RETURN_IF_ERROR(
      encode_raw(text, {.find_special = options.parse_special_tokens, .content = options.content},
                 *scratch, &ids));
  (*scratch).release_if_large();
  if (options.add_special_tokens) {
    ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  }
  return ids;
}

absl::Status BpeTokenizer::encode_raw(std::string_view text, AddedTokenFinder::Options options,
                                      Scratch& scratch, std::vector<int32_t>* ids) const {
  const auto on_normalized = [&](std::string_view piece, std::optional<int32_t> id) {
    if (!id) return encode_normalized(piece, scratch, ids);
    ids->push_back(*id);
    return absl::OkStatus();
  };
  std::vector<TextSpan> content;
  const auto on_raw = [&](std::string_view piece, std::optional<int32_t> id) {
    if (!id) {
      if (normalized_tokens_.any_special()) {
        const auto offset = static_cast<size_t>(piece.data() - text.data());
        content = content_after_nfc(piece, spans_within(options.content, offset, piece.size()));
      }
      if (nfc_) piece = nfc_->normalize(piece, &scratch.normalized);
      return normalized_tokens_.split(
          piece, {.find_special = options.find_special, .content = content}, on_normalized);
    }
    ids->push_back(*id);
    return absl::OkStatus();
  };
  return raw_tokens_.split(text, options, on_raw);
}

// Where the parts of a text are once it is normalised. A character may grow together with one of
// the next part: then all of the text counts as content.
std::vector<TextSpan> BpeTokenizer::content_after_nfc(std::string_view text,
                                                      std::vector<TextSpan> content) const {
  if (!nfc_ || content.empty()) return content;
  std::string buffer;
  size_t done = 0;
  size_t normalized = 0;
  const auto advance = [&](size_t* to) {
    normalized += nfc_->normalize(text.substr(done, *to - done), &buffer).size();
    done = std::exchange(*to, normalized);
  };
  for (TextSpan& span : content) {
    advance(&span.begin);
    advance(&span.end);
  }
  size_t end = text.size();
  advance(&end);
  const size_t whole = nfc_->normalize(text, &buffer).size();
  if (whole != end) content.assign(1, {.begin = 0, .end = whole});
  return content;
}

absl::Status BpeTokenizer::encode_normalized(std::string_view text, Scratch& scratch,
                                             std::vector<int32_t>* ids) const {
  return pretokenizer_.split(text, scratch.matcher, [&](std::string_view word) {
    if (scratch.words.lookup(word, ids)) return;
    const size_t before = ids->size();
    bpe_.encode_word(word, scratch.bpe, ids);
    scratch.words.insert(word, std::span<const int32_t>(*ids).subspan(before));
  });
}

std::string BpeTokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? token_bytes_[static_cast<size_t>(id)] : std::string();
}

bool BpeTokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)];
}

std::optional<int32_t> BpeTokenizer::token_id(std::string_view token) const {
  const auto found = token_ids_.find(token);
  if (found == token_ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace pbserve::models
