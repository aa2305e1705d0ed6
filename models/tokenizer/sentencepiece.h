// tokenizer.model, read and run by the SentencePiece library. Around it: added tokens, what
// tokenizer_config.json adds before and behind a text, and a word cache.
#pragma once

#include <memory>
#include <string>

#include "models/tokenizer/tokenizer.h"

namespace pbserve::models {

inline constexpr size_t kSentencePieceBytesMax = size_t{64} << 20;

// Reads <folder>/tokenizer.model and, if it is there, <folder>/tokenizer_config.json.
absl::StatusOr<std::unique_ptr<Tokenizer>> load_sentencepiece(const std::string& folder);

// As above from the files' contents; an empty `config` stands for no file.
struct SentencePieceFiles {
  std::string_view model;
  std::string_view config;
};
absl::StatusOr<std::unique_ptr<Tokenizer>> sentencepiece_from_files(const SentencePieceFiles& files,
                                                                    const std::string& folder);

}  // namespace pbserve::models
