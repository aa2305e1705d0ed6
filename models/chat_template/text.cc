#include "models/chat_template/text.h"

#include <utf8proc.h>

#include <algorithm>

namespace pbserve::models::jinja {
namespace {

utf8proc_int32_t point(char32_t code_point) { return static_cast<utf8proc_int32_t>(code_point); }

bool is_letter(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(point(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_cased(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(point(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT;
}

// Unicode's simple case mappings, one code point for one. Of the hundred special ones that Python
// also knows only the sharp s occurs in texts that one would upper-case.
void append_upper(char32_t c, std::string* out) {
  if (c == U'\u00DF') {
    out->append("SS");
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_toupper(point(c))), out);
  }
}

void append_lower(char32_t c, std::string* out) {
  append_utf8(static_cast<char32_t>(utf8proc_tolower(point(c))), out);
}

void append_title(char32_t c, std::string* out) {
  if (c == U'\u00DF') {
    out->append("Ss");
  } else {
    append_utf8(static_cast<char32_t>(utf8proc_totitle(point(c))), out);
  }
}

bool is_stripped(char32_t c, std::optional<std::string_view> chars) {
  if (!chars) return is_space(c);
  for (size_t pos = 0; pos < chars->size();) {
    if (next_code_point(*chars, &pos) == c) return true;
  }
  return false;
}

// Start of the code point that ends at `end`.
size_t previous_start(std::string_view text, size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

std::vector<std::string_view> split_at_spaces(std::string_view text, int64_t splits_max,
                                              Side from) {
  std::vector<std::string_view> pieces;
  text = strip(text, from);
  while (!text.empty() && splits_max-- != 0) {
    // `cut` is the word's far edge: the first space from the left, or behind the last one.
    size_t cut = from == Side::kLeft ? 0 : text.size();
    while (from == Side::kLeft ? cut < text.size() : cut > 0) {
      size_t next = from == Side::kLeft ? cut : previous_start(text, cut);
      const size_t start = next;
      if (is_space(next_code_point(text, &next))) break;
      cut = from == Side::kLeft ? next : start;
    }
    pieces.emplace_back(from == Side::kLeft ? text.substr(0, cut) : text.substr(cut));
    text = from == Side::kLeft ? strip(text.substr(cut), Side::kLeft)
                               : strip(text.substr(0, cut), Side::kRight);
  }
  if (!text.empty()) pieces.emplace_back(text);
  return pieces;
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (size_t pos = 0; pos < text.size();) {
    utf8proc_int32_t code_point;
    const utf8proc_ssize_t len = utf8proc_iterate(
        bytes + pos, static_cast<utf8proc_ssize_t>(text.size() - pos), &code_point);
    if (len <= 0) return false;
    pos += static_cast<size_t>(len);
  }
  return true;
}

char32_t next_code_point(std::string_view text, size_t* pos) {
  const auto first = static_cast<unsigned char>(text[(*pos)++]);
  if (first < 0x80) return first;
  char32_t code_point = first & (first >= 0xF0 ? 0x07 : first >= 0xE0 ? 0x0F : 0x1F);
  while (*pos < text.size() && (static_cast<unsigned char>(text[*pos]) & 0xC0) == 0x80) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[(*pos)++]) & 0x3F);
  }
  return code_point;
}

void append_utf8(char32_t code_point, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t len = utf8proc_encode_char(point(code_point), bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(len));
}

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  }));
}

std::vector<size_t> code_point_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t pos = 0; pos < text.size(); next_code_point(text, &pos)) offsets.push_back(pos);
  offsets.push_back(text.size());
  return offsets;
}

bool is_space(char32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20);
  return c == 0x85 || utf8proc_category(point(c)) == UTF8PROC_CATEGORY_ZS || c == 0x2028 ||
         c == 0x2029;
}

bool is_printable(char32_t c) {
  if (c == U' ') return true;
  switch (utf8proc_category(point(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> chars) {
  while (side != Side::kRight && !text.empty()) {
    size_t next = 0;
    if (!is_stripped(next_code_point(text, &next), chars)) break;
    text.remove_prefix(next);
  }
  while (side != Side::kLeft && !text.empty()) {
    const size_t start = previous_start(text, text.size());
    size_t pos = start;
    if (!is_stripped(next_code_point(text, &pos), chars)) break;
    text = text.substr(0, start);
  }
  return text;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, int64_t splits_max,
                                    Side from) {
  std::vector<std::string_view> pieces;
  if (!separator) {
    pieces = split_at_spaces(text, splits_max, from);
  } else {
    while (splits_max-- != 0) {
      const size_t cut = from == Side::kLeft ? text.find(*separator) : text.rfind(*separator);
      if (cut == std::string_view::npos) break;
      const std::string_view behind = text.substr(cut + separator->size());
      pieces.emplace_back(from == Side::kLeft ? text.substr(0, cut) : behind);
      text = from == Side::kLeft ? behind : text.substr(0, cut);
    }
    pieces.emplace_back(text);
  }
  if (from == Side::kRight) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = pos;
    const char32_t c = next_code_point(text, &pos);
    const bool ends_line = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                           c == 0x2028 || c == 0x2029;
    if (!ends_line) continue;
    if (c == U'\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.emplace_back(text.substr(start, (keep_ends ? pos : end) - start));
    start = pos;
  }
  if (start < text.size()) lines.emplace_back(text.substr(start));
  return lines;
}

std::string to_upper(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_upper(next_code_point(text, &pos), &out);
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_lower(next_code_point(text, &pos), &out);
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  size_t pos = 0;
  if (!text.empty()) append_title(next_code_point(text, &pos), &out);
  return out + to_lower(text.substr(pos));
}

std::string title_case(std::string_view text) {
  std::string out;
  bool inside_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, &pos);
    inside_word ? append_lower(c, &out) : append_title(c, &out);
    inside_word = is_cased(c);
  }
  return out;
}

bool is_upper(std::string_view text) {
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, &pos);
    if (is_cased(c) && utf8proc_category(point(c)) != UTF8PROC_CATEGORY_LU) return false;
    any = any || is_cased(c);
  }
  return any;
}

bool is_lower(std::string_view text) {
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, &pos);
    if (is_cased(c) && utf8proc_category(point(c)) != UTF8PROC_CATEGORY_LL) return false;
    any = any || is_cased(c);
  }
  return any;
}

bool all_of_class(std::string_view text, CharClass wanted) {
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, &pos);
    const bool digit = utf8proc_category(point(c)) == UTF8PROC_CATEGORY_ND;
    const bool ok = wanted == CharClass::kAlpha   ? is_letter(c)
                    : wanted == CharClass::kDigit ? digit
                    : wanted == CharClass::kAlnum ? is_letter(c) || digit
                                                  : is_space(c);
    if (!ok) return false;
  }
  return !text.empty();
}

}  // namespace pbserve::models::jinja
