// The regular expressions of tokenizer.json are written for Oniguruma. Translates the part of that
// dialect which published tokenizers use into PCRE2's, so that the matches are the same; whatever
// the two engines read differently is refused.
//
// What can still differ from Oniguruma (with Unicode 16): scripts (\p{Han}) of characters later
// than PCRE2's Unicode version, and characters later than Unicode 16 with a PCRE2 that knows them.
#pragma once

#include <string>
#include <string_view>

#include "kernels/core/status.h"

namespace pbserve::models {

// The same expression for PCRE2 with PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE.
absl::StatusOr<std::string> translate_regex(std::string_view oniguruma);

}  // namespace pbserve::models
