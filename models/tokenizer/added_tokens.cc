#include "models/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "kernels/core/check.h"
#include "models/tokenizer/utf8.h"

namespace pbserve::models {
namespace {

uint64_t edge(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

// What a regex calls \w: letters with the circled ones, marks, decimal digits, connectors, joiners.
bool is_word_character(char32_t value) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(value))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return value == 0x200C || value == 0x200D || (value >= 0x24B6 && value <= 0x24E9) ||
             (value >= 0x1F130 && value <= 0x1F149) || (value >= 0x1F150 && value <= 0x1F169) ||
             (value >= 0x1F170 && value <= 0x1F189);
  }
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool word_before = begin > 0 && is_word_character(utf8_char_before(text, begin).value);
  const bool word_after = end < text.size() && is_word_character(utf8_char_at(text, end).value);
  return !word_before && !word_after;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), token_at_node_(1, -1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    check(!content.empty(), "an added token has content");
    any_special_ = any_special_ || tokens_[i].special;
    starts_token_[static_cast<unsigned char>(content[0])] = true;
    uint32_t node = 0;
    for (char byte : content) {
      const auto next_node = static_cast<uint32_t>(token_at_node_.size());
      const auto [child, inserted] = children_.try_emplace(edge(node, byte), next_node);
      if (inserted) token_at_node_.push_back(-1);
      node = child->second;
    }
    check(token_at_node_[node] < 0, "added tokens differ");
    token_at_node_[node] = static_cast<int32_t>(i);
  }
}

// The first longest token of those that may stand there.
std::optional<AddedTokenFinder::Match> AddedTokenFinder::find(
    std::string_view text, size_t from, std::span<const TextSpan>* content) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_token_[static_cast<unsigned char>(text[begin])]) continue;
    std::optional<Match> longest;
    while (!content->empty() && content->front().end <= begin) *content = content->subspan(1);
    const size_t special_end = content->empty() ? text.size() : content->front().begin;
    uint32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      const auto child = children_.find(edge(node, text[at]));
      if (child == children_.end()) break;
      node = child->second;
      if (token_at_node_[node] < 0) continue;
      const AddedToken& token = tokens_[static_cast<size_t>(token_at_node_[node])];
      if (!token.special || at < special_end) longest = Match{begin, at + 1, &token};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

absl::Status AddedTokenFinder::split(std::string_view text, Options options, Sink sink) const {
  size_t done = 0;  // everything before is handed on
  size_t from = 0;
  while (!tokens_.empty()) {
    const std::optional<Match> match = find(text, from, &options.content);
    if (!match) break;
    from = match->end;
    const AddedToken& token = *match->token;
    if (token.special && !options.find_special) continue;
    if (token.single_word && !stands_alone(text, match->begin, match->end)) continue;
    size_t begin = match->begin;
    size_t end = match->end;
    if (token.lstrip) {
      while (begin > done) {
        const Utf8Char before = utf8_char_before(text, begin);
        if (!is_white_space(before.value)) break;
        begin -= before.num_bytes;
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip) {
      while (end < text.size()) {
        const Utf8Char after = utf8_char_at(text, end);
        if (!is_white_space(after.value)) break;
        end += after.num_bytes;
      }
    }
    if (done < begin) RETURN_IF_ERROR(sink(text.substr(done, begin - done), std::nullopt));
    RETURN_IF_ERROR(sink(text.substr(begin, end - begin), token.id));
    done = end;
  }
  if (done < text.size()) return sink(text.substr(done), std::nullopt);
  return absl::OkStatus();
}

}  // namespace pbserve::models
