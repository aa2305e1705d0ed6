// The settings inside a tokenizer.model that decide how text may be cut and how tokens become text.
// The library keeps them to itself, so they are read from the file: a protobuf message, of which a
// few fields are needed.
#pragma once

#include <string_view>

#include "kernels/core/status.h"

namespace pbserve::models {

// Defaults are those of sentencepiece_model.proto.
struct SentencePieceSpec {
  bool is_bpe = false;
  bool treat_whitespace_as_suffix = false;
  bool has_charsmap = false;  // text is normalised before it is cut
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_denormalizer = false;
};

// kInvalidArgument where the bytes are not a protobuf message.
absl::StatusOr<SentencePieceSpec> read_sentencepiece_spec(std::string_view model);

}  // namespace pbserve::models
