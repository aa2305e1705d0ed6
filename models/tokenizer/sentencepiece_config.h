// The part of tokenizer_config.json that transformers' LlamaTokenizer applies around a
// SentencePiece model: begin and end tokens and added tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"
#include "models/tokenizer/added_tokens.h"

namespace pbserve::models {

struct SentencePieceConfig {
  bool add_bos = true;
  bool add_eos = false;
  std::string bos_token;  // empty: the model's own
  std::string eos_token;
  std::vector<AddedToken> added_tokens = {};
};

// `what` names the file. Refuses what LlamaTokenizer would do differently.
absl::StatusOr<SentencePieceConfig> read_sentencepiece_config(std::string_view text,
                                                              const std::string& what);

}  // namespace pbserve::models
