#include "models/tokenizer/stream_decoder.h"

#include <algorithm>

#include "models/tokenizer/utf8.h"

namespace pbserve::models {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      rules_(tokenizer.decode_rules()),
      leading_spaces_left_(rules_.leading_spaces_dropped) {}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->is_special(id)) return {};
  const std::string bytes = tokenizer_->token_bytes(id);
  size_t begin = 0;
  if (leading_spaces_left_ > 0 && !bytes.empty()) {
    if (tokenizer_->keeps_leading_space(id)) leading_spaces_left_ = 0;
    while (begin < bytes.size() && bytes[begin] == ' ' && leading_spaces_left_ > 0) {
      ++begin;
      --leading_spaces_left_;
    }
    if (begin < bytes.size()) leading_spaces_left_ = 0;
  }
  pending_.append(bytes, begin);
  return take_complete();
}

std::string StreamDecoder::finish() {
  std::string text;
  if (!pending_.empty()) append_replacements(pending_.size(), &text);
  pending_.clear();
  leading_spaces_left_ = rules_.leading_spaces_dropped;
  return text;
}

std::string StreamDecoder::take_complete() {
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = first_utf8_step(rest);
    if (step.part == Utf8Part::kIncomplete) break;
    if (step.part == Utf8Part::kCharacter) {
      text.append(rest, 0, step.num_bytes);
    } else {
      append_replacements(step.num_bytes, &text);
    }
    rest.remove_prefix(step.num_bytes);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text;
}

void StreamDecoder::append_replacements(size_t num_bytes, std::string* text) const {
  const size_t count = rules_.replace_each_byte ? num_bytes : 1;
  for (size_t i = 0; i < count; ++i) *text += kReplacementCharacter;
}

}  // namespace pbserve::models
