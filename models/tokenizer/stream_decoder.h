// StreamDecoder: ids in, text out, never half a character. Owned by one sequence.
#pragma once

#include <string>

#include "models/tokenizer/tokenizer.h"

namespace pbserve::models {

class StreamDecoder {
 public:
  // `tokenizer` outlives the decoder.
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);

  // The text that became complete with this token; may be empty.
  std::string push(int32_t id);

  // What is left at the end of the sequence; a cut-off character becomes U+FFFD.
  std::string finish();

 private:
  std::string take_complete();
  void append_replacements(size_t num_bytes, std::string* text) const;

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  DecodeRules rules_;
  size_t leading_spaces_left_;  // to drop; 0 once text has begun
  std::string pending_;         // bytes of a character that is not complete yet
};

}  // namespace pbserve::models
