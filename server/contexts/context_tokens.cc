#include "server/contexts/context_tokens.h"

#include <utility>

#include "absl/strings/ascii.h"

namespace pbserve::server {
namespace {

// The last place where tokenizers split whatever follows: before a word that begins a line, and
// between a word and the blank before the next. 0: there is none.
size_t last_cut(const std::string& text) {
  const auto at = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = text.size(); i-- > 1;) {
    if (at(i - 1) == '\n' && absl::ascii_isalnum(at(i))) return i;
    const bool is_blank = at(i) == ' ' && absl::ascii_isalpha(at(i - 1));
    if (is_blank && i + 1 < text.size() && absl::ascii_isalpha(at(i + 1))) return i;
  }
  return 0;
}

void append(const std::vector<int32_t>& more, std::vector<int32_t>* ids) {
  ids->insert(ids->end(), more.begin(), more.end());
}

// So much is reserved: many small parts must not copy all ids each time, and what is reserved is
// charged.
size_t with_spare(size_t num_ids) { return num_ids + num_ids / 8; }

}  // namespace

absl::StatusOr<ContextTokens::Growth> ContextTokens::grown_by(const Tokenize& tokenize,
                                                              const engine::Prompt& part) const {
  Growth growth;
  if (std::holds_alternative<std::vector<int32_t>>(part)) {
    if (!tail_.empty()) {
      ASSIGN_OR_RETURN(growth.ids, tokenize(tail_, adds_special_));
    }
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenize(part, false));
    append(ids, &growth.ids);
    return growth;
  }
  growth.tail = tail_ + std::get<std::string>(part);
  growth.next_cut_bytes = next_cut_bytes_;
  growth.adds_special = adds_special_;
  if (growth.tail.size() < next_cut_bytes_) return growth;
  const size_t cut = last_cut(growth.tail);
  if (cut > 0) {
    const std::string end = growth.tail.substr(cut);
    ASSIGN_OR_RETURN(const std::vector<int32_t> whole, tokenize(growth.tail, adds_special_));
    ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenize(growth.tail.substr(0, cut), adds_special_));
    ASSIGN_OR_RETURN(const std::vector<int32_t> rest, tokenize(end, false));
    const size_t num_decided = ids.size();
    append(rest, &ids);
    if (ids == whole) {
      ids.resize(num_decided);
      return Growth{.ids = std::move(ids), .tail = end};
    }
  }
  // A tokenizer that does not split there, or a text without such a place: looking again at every
  // part would take time with the square of the text.
  growth.next_cut_bytes = 2 * growth.tail.size();
  return growth;
}

void ContextTokens::commit(Growth growth) {
  const size_t num_ids = ids_.size() + growth.ids.size();
  if (num_ids > ids_.capacity()) ids_.reserve(with_spare(num_ids));
  append(growth.ids, &ids_);
  tail_ = std::move(growth.tail);
  tail_.shrink_to_fit();
  next_cut_bytes_ = growth.next_cut_bytes;
  adds_special_ = growth.adds_special;
}

absl::StatusOr<std::vector<int32_t>> ContextTokens::followed_by(const Tokenize& tokenize,
                                                                const engine::Prompt& end) const {
  std::vector<int32_t> ids = ids_;
  std::string text = tail_;
  const auto* more = std::get_if<std::string>(&end);
  if (more != nullptr) text += *more;
  if (!text.empty()) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> of_text, tokenize(text, adds_special_));
    append(of_text, &ids);
  }
  if (more == nullptr) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> last, tokenize(end, false));
    append(last, &ids);
  }
  return ids;
}

int64_t ContextTokens::bytes_with(const Growth& growth) const {
  const size_t num_ids = with_spare(ids_.size() + growth.ids.size());
  return static_cast<int64_t>(num_ids * sizeof(int32_t) + growth.tail.size());
}

}  // namespace pbserve::server
