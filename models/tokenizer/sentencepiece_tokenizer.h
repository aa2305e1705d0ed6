// A Tokenizer on the SentencePiece library. Around it: added tokens, ids before and behind the
// text, and a word cache, which is what makes English fast (the library alone: 2 MB/s).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/scratch_pool.h"
#include "models/tokenizer/sentencepiece_library.h"
#include "models/tokenizer/sentencepiece_spec.h"
#include "models/tokenizer/token_map.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/word_cache.h"

namespace pbserve::models {

class SentencePieceTokenizer : public Tokenizer {
 public:
  struct Parts {
    std::unique_ptr<SentencePieceModule> module;  // loaded
    SentencePieceSpec spec;
    std::vector<AddedToken> added_tokens;  // control pieces among them
    std::vector<int32_t> prefix_ids;
    std::vector<int32_t> suffix_ids;
  };
  explicit SentencePieceTokenizer(Parts parts);

  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text,
                                              EncodeOptions options) const override;
  std::string token_bytes(int32_t id) const override;
  bool is_special(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view token) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(token_bytes_.size()); }
  DecodeRules decode_rules() const override { return rules_; }
  // Only where the piece spells a space as U+2581 is it one that encoding may have put there.
  bool keeps_leading_space(int32_t id) const override;

 private:
  void collect_tokens(const std::vector<AddedToken>& added_tokens);
  absl::Status encode_text(std::string_view text, WordCache& words,
                           std::vector<int32_t>* ids) const;
  absl::Status encode_word(std::string_view word, WordCache& words,
                           std::vector<int32_t>* ids) const;
  absl::Status encode_whole(std::string_view text, std::vector<int32_t>* ids) const;

  std::unique_ptr<SentencePieceModule> library_;
  bool word_by_word_;
  DecodeRules rules_;
  AddedTokenFinder added_tokens_;
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> suffix_ids_;
  std::vector<std::string> token_bytes_;  // by id
  std::vector<bool> special_;             // by id
  TokenMap token_ids_;                    // piece or added token -> id
  mutable ScratchPool<WordCache> caches_;
};

}  // namespace pbserve::models
