// The pipeline of a byte-level BPE tokenizer.json: added tokens are cut out, the rest is
// normalised, split into words, and each word is merged. Built by tokenizer_json.cc.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/bpe.h"
#include "models/tokenizer/nfc.h"
#include "models/tokenizer/pretokenizer.h"
#include "models/tokenizer/scratch_pool.h"
#include "models/tokenizer/token_map.h"
#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/word_cache.h"

namespace pbserve::models {

class BpeTokenizer : public Tokenizer {
 public:
  struct Parts {
    explicit Parts(Bpe merges) : bpe(std::move(merges)) {}

    std::vector<AddedToken> added_tokens;  // content as matched: normalised if the token says so
    std::optional<NfcNormalizer> nfc;
    Pretokenizer pretokenizer;
    Bpe bpe;
    std::vector<int32_t> prefix_ids;       // what the post-processor puts before the text
    std::vector<int32_t> suffix_ids;       // and behind it
    std::vector<std::string> token_bytes;  // by id; empty where there is no token
    TokenMap token_ids;                    // the file's spelling -> id
  };
  // REQUIRES: ids of added tokens are below token_bytes.size(); contents differ.
  explicit BpeTokenizer(Parts parts);

  absl::StatusOr<std::vector<int32_t>> encode(std::string_view text,
                                              EncodeOptions options) const override;
  std::string token_bytes(int32_t id) const override;
  bool is_special(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view token) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(token_bytes_.size()); }
  int32_t num_dropped_bytes() const override { return bpe_.num_dropped_bytes(); }

 private:
  struct Scratch {
    Regex::Matcher matcher;
    Bpe::Scratch bpe;
    WordCache words;
    std::string normalized;

    void release_if_large();
  };

  absl::Status encode_raw(std::string_view text, AddedTokenFinder::Options options,
                          Scratch& scratch, std::vector<int32_t>* ids) const;
  std::vector<TextSpan> content_after_nfc(std::string_view text,
                                          std::vector<TextSpan> content) const;
  absl::Status encode_normalized(std::string_view text, Scratch& scratch,
                                 std::vector<int32_t>* ids) const;

  AddedTokenFinder raw_tokens_;
  AddedTokenFinder normalized_tokens_;
  std::optional<NfcNormalizer> nfc_;
  Pretokenizer pretokenizer_;
  Bpe bpe_;
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> suffix_ids_;
  std::vector<std::string> token_bytes_;
  std::vector<bool> special_;  // by id
  TokenMap token_ids_;
  mutable ScratchPool<Scratch> scratch_pool_;
};

}  // namespace pbserve::models
