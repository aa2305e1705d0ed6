// tokenizer.json of the byte-level BPE kind: Llama 3, Qwen and their like. Every field that would
// change ids or text and is not implemented is refused by its path and value.
#pragma once

#include <memory>
#include <string>

#include "models/json_reader.h"
#include "models/tokenizer/tokenizer.h"

namespace pbserve::models {

inline constexpr size_t kTokenizerJsonBytesMax = size_t{64} << 20;

// `what` names the file in errors.
absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer_from_json(const nlohmann::json& root,
                                                               const std::string& what);

// Whether the file was made from a SentencePiece model: its BPE falls back to bytes.
bool is_sentencepiece_conversion(const nlohmann::json& root);

}  // namespace pbserve::models
