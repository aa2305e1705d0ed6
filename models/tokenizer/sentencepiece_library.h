// The SentencePiece library, loaded when the first tokenizer.model needs it.
#pragma once

#include <memory>
#include <string_view>

#include "kernels/core/status.h"
#include "models/tokenizer/sentencepiece_module.h"

namespace pbserve::models {

// Finds the module beside the program, in ../lib/pbserve of an installation, or where it was built.
// kUnavailable says what the system's loader said.
absl::StatusOr<std::unique_ptr<SentencePieceModule>> open_sentencepiece();

}  // namespace pbserve::models
