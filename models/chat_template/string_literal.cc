#include "models/chat_template/string_literal.h"

#include <algorithm>
#include <charconv>

#include "models/chat_template/lexer.h"
#include "models/chat_template/text.h"

namespace pbserve::models::jinja {
namespace {

// Appends the code point written as `digits` of `base`.
absl::Status append_code(std::string_view digits, int base, size_t count_wanted, int line,
                         std::string* out) {
  uint32_t code = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), code, base);
  if (digits.size() != count_wanted || end != digits.data() + digits.size()) {
    return syntax_error(line, "a string has an incomplete escape of a character code");
  }
  if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
    return syntax_error(line, "a string has the code of no character: " + std::string(digits));
  }
  append_utf8(code, out);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> unescape(std::string_view body, int line) {
  static constexpr std::string_view kLetters = "nrtabfv\\'\"";
  static constexpr std::string_view kMeanings = "\n\r\t\a\b\f\v\\'\"";
  std::string text;
  for (size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '\\') {
      text.push_back(body[i]);
      continue;
    }
    const char letter = body[++i];  // the lexer ends no string behind a backslash
    if (const size_t at = kLetters.find(letter); at != std::string_view::npos) {
      text.push_back(kMeanings[at]);
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      const size_t count = letter == 'x' ? 2 : letter == 'u' ? 4 : 8;
      RETURN_IF_ERROR(append_code(body.substr(i + 1, count), 16, count, line, &text));
      i += count;
    } else if (letter >= '0' && letter <= '7') {
      size_t count = 1;
      while (count < 3 && i + count < body.size() && body[i + count] >= '0' &&
             body[i + count] <= '7') {
        ++count;
      }
      RETURN_IF_ERROR(append_code(body.substr(i, count), 8, count, line, &text));
      i += count - 1;
    } else if (letter == 'N') {
      return unsupported(line, "the escape \\N of a character's name");
    } else if (letter != '\n') {
      text.push_back('\\');
      text.push_back(letter);
    }
  }
  return text;
}

}  // namespace pbserve::models::jinja
