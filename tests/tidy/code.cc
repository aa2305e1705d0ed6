// Reduces C++ to its code, so that braces can be counted: a small scanner, not a parser.
#include <algorithm>

#include "tests/tidy/strings.h"
#include "tests/tidy/tidy.h"

namespace pbserve::tidy {
namespace {

// Index after the literal or comment that starts at `at`; `at` itself where none does.
size_t skip_quoted(std::string_view text, size_t at) {
  const char quote = text[at];
  size_t end = at + 1;
  while (end < text.size() && text[end] != quote && text[end] != '\n') {
    end += text[end] == '\\' ? 2 : 1;
  }
  return std::min(end + 1, text.size());
}

size_t skip_past(std::string_view text, size_t from, std::string_view end) {
  const size_t found = text.find(end, from);
  return found == std::string_view::npos ? text.size() : found + end.size();
}

size_t skip_raw_string(std::string_view text, size_t at) {
  const size_t open = text.find('(', at);
  if (open == std::string_view::npos) return text.size();
  const std::string_view delimiter = text.substr(at + 2, open - at - 2);
  return skip_past(text, open, concat(")", delimiter, "\""));
}

size_t skip_directive(std::string_view text, size_t at) {
  size_t end = text.find('\n', at);
  while (end != std::string_view::npos && end > 0 && text[end - 1] == '\\') {
    end = text.find('\n', end + 1);
  }
  return end == std::string_view::npos ? text.size() : end;
}

// 1'000 is a number, not the start of a character; U'x' is a character.
bool is_digit_separator(std::string_view text, size_t at) {
  size_t begin = at;
  while (begin > 0 && (is_word_char(text[begin - 1]) || text[begin - 1] == '\'')) --begin;
  return begin < at && text[begin] >= '0' && text[begin] <= '9';
}

bool starts_line(std::string_view text, size_t at) {
  const size_t line = text.find_last_not_of(" \t", at == 0 ? 0 : at - 1);
  return at == 0 || line == std::string_view::npos || text[line] == '\n';
}

size_t skip_no_code(std::string_view text, size_t at) {
  const std::string_view rest = text.substr(at);
  if (rest.starts_with("//")) return std::min(text.find('\n', at), text.size());
  if (rest.starts_with("/*")) return skip_past(text, at + 2, "*/");
  if (rest.starts_with("R\"")) return skip_raw_string(text, at);
  if (rest[0] == '"') return skip_quoted(text, at);
  if (rest[0] == '\'' && !is_digit_separator(text, at)) return skip_quoted(text, at);
  if (rest[0] == '#' && starts_line(text, at)) return skip_directive(text, at);
  return at;
}

}  // namespace

std::string strip_to_code(std::string_view text) {
  std::string code(text);
  for (size_t at = 0; at < text.size();) {
    const size_t end = skip_no_code(text, at);
    for (size_t i = at; i < end; ++i) {
      if (code[i] != '\n') code[i] = ' ';
    }
    at = std::max(end, at + 1);
  }
  return code;
}

bool is_cpp(std::string_view path) {
  return path.ends_with(".h") || path.ends_with(".cc") || path.ends_with(".cu") ||
         path.ends_with(".cuh");
}

}  // namespace pbserve::tidy
