// Cuts a template into tokens, with the white space rules of transformers: trim_blocks,
// lstrip_blocks, one newline at the end dropped, and the marks - and + of a tag.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace pbserve::models::jinja {

enum class TokenKind {
  kText,  // outside of all tags, white space already trimmed
  kOutputBegin,
  kOutputEnd,  // {{ }}
  kTagBegin,
  kTagEnd,  // {% %}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;  // strings without quotes and escapes, numbers without underscores
  int line;
};

// The last token is kEnd.
absl::StatusOr<std::vector<Token>> tokenize(std::string_view source);

// An error of the template's text: "chat template, line 3: ...".
absl::Status syntax_error(int line, std::string_view what);
absl::Status unsupported(int line, std::string_view construct);

}  // namespace pbserve::models::jinja
