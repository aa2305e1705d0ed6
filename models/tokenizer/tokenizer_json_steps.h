// The readers of tokenizer.json's pipeline: one function for each of its four steps.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/json_reader.h"
#include "models/tokenizer/nfc.h"
#include "models/tokenizer/pretokenizer.h"

namespace pbserve::models {

// A problem with a value that is well formed but not supported: "<where>: <value> is ...".
absl::Status unsupported(std::string_view where, std::string_view value);

// The reader's first error, or the first key it was never asked for.
absl::Status finish(const JsonReader& reader);

// In all four, `value` is nullptr where the file has nothing or null, and `where` is the path of
// the field, the file's name included.

// null, NFC, or a Sequence of NFC.
absl::StatusOr<std::optional<NfcNormalizer>> read_normalizer(const nlohmann::json* value,
                                                             const std::string& where);

// Split and Digits steps with one ByteLevel at the end.
absl::StatusOr<Pretokenizer> read_pretokenizer(const nlohmann::json* value,
                                               const std::string& where);

// ByteLevel (which only trims offsets) and TemplateProcessing for a single sequence.
struct AddedIds {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};
absl::StatusOr<AddedIds> read_post_processor(const nlohmann::json* value, const std::string& where,
                                             int32_t vocab_size);

// ByteLevel.
absl::Status check_decoder(const nlohmann::json* value, const std::string& where);

}  // namespace pbserve::models
