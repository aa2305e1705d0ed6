// Finds the added tokens ("<|im_end|>") in text: leftmost, and of those the longest, as the
// `tokenizers` package does. Linear in the text; a step costs at most the longest token.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "kernels/core/status.h"
#include "models/text_span.h"

namespace pbserve::models {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between characters that are not part of a word
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;   // is looked for in normalised text
  bool special = false;
};

class AddedTokenFinder {
 public:
  // REQUIRES: contents are not empty and differ.
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  bool any_special() const { return any_special_; }

  struct Options {
    bool find_special = true;  // otherwise special tokens are text like any other
    // Parts of the text that no special token may reach into; in order and apart.
    std::span<const TextSpan> content = {};
  };
  // Called in order with each piece: text without an id, or an added token's id.
  using Sink = absl::FunctionRef<absl::Status(std::string_view text, std::optional<int32_t> id)>;
  // REQUIRES: text is valid UTF-8.
  absl::Status split(std::string_view text, Options options, Sink sink) const;

 private:
  struct Match {
    size_t begin;
    size_t end;
    const AddedToken* token;
  };
  // `content` loses the parts that lie before what was looked at.
  std::optional<Match> find(std::string_view text, size_t from,
                            std::span<const TextSpan>* content) const;

  std::vector<AddedToken> tokens_;
  bool any_special_ = false;
  std::array<bool, 256> starts_token_{};
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // (node, byte) -> node; the root is 0
  std::vector<int32_t> token_at_node_;                // index into tokens_, or -1
};

}  // namespace pbserve::models
