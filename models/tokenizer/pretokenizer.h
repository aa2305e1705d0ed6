// Cuts text into the words that byte-pair merges never cross: the pre_tokenizer of tokenizer.json.
// Steps run one inside the other, so that no list of words is ever held.
#pragma once

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/core/status.h"
#include "models/tokenizer/regex.h"

namespace pbserve::models {

// What becomes of the text a Split's pattern matches ("-" in "a-b").
enum class SplitBehavior {
  kIsolated,            // a, -, b
  kRemoved,             // a, b
  kMergedWithPrevious,  // a-, b
  kMergedWithNext,      // a, -b
  kContiguous,          // as isolated, but a run of matches is one word
};

struct SplitStep {
  Regex regex;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what the pattern does not match counts as the match
};

class Pretokenizer {
 public:
  // What ByteLevel with `use_regex` splits by: the expression of GPT-2.
  static absl::StatusOr<SplitStep> gpt2_split();

  void add_split(SplitStep step) { steps_.emplace_back(std::move(step)); }
  // ByteLevel's `add_prefix_space`: a piece that does not begin with a space gets one.
  void add_prefix_space() { steps_.emplace_back(std::nullopt); }

  // Calls `on_word` with each word in order. REQUIRES: text is valid UTF-8.
  using WordSink = absl::FunctionRef<void(std::string_view)>;
  absl::Status split(std::string_view text, Regex::Matcher& matcher, WordSink on_word) const;

 private:
  using Step = std::optional<SplitStep>;  // nothing: the prefix space

  absl::Status run(size_t step_idx, std::string_view piece, Regex::Matcher& matcher,
                   WordSink on_word) const;

  std::vector<Step> steps_;
};

}  // namespace pbserve::models
