// The tokens of a prompt that comes in parts. A text's parts need not end where tokens do: the end
// of what has come stays text until it is sure that no later part changes its tokens, so that the
// parts of a text have the tokens that the text has as a whole.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "kernels/core/status.h"

namespace pbserve::server {

// Checks ids and tokenises texts: Engine::tokenize.
using Tokenize = std::function<absl::StatusOr<std::vector<int32_t>>(const engine::Prompt& prompt,
                                                                    bool add_special_tokens)>;

class ContextTokens {
 public:
  // What the tokenizer puts around a text it puts before the first part, if that is a text.
  explicit ContextTokens(bool add_special_tokens) : adds_special_(add_special_tokens) {}

  // What a part adds.
  struct Growth {
    std::vector<int32_t> ids;  // decided, after those before
    std::string tail;          // undecided, in place of the one before
    size_t next_cut_bytes = 0;
    bool adds_special = false;
  };
  // `part` is a text or ids. Changes nothing.
  absl::StatusOr<Growth> grown_by(const Tokenize& tokenize, const engine::Prompt& part) const;
  void commit(Growth growth);

  // All tokens, with those of `end` after them.
  absl::StatusOr<std::vector<int32_t>> followed_by(const Tokenize& tokenize,
                                                   const engine::Prompt& end) const;

  const std::vector<int32_t>& decided() const { return ids_; }
  const std::string& tail() const { return tail_; }
  // Of all that is kept, once `growth` is added.
  int64_t bytes_with(const Growth& growth) const;

 private:
  std::vector<int32_t> ids_;
  std::string tail_;
  size_t next_cut_bytes_ = 0;  // of the tail, before which no cut is looked for
  bool adds_special_;          // nothing is decided yet
};

}  // namespace pbserve::server
