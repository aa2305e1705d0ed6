// UTF-8, one character at a time: what is whole, what is broken, what may still become whole.
// Table 3-7 of the Unicode Standard decides; broken bytes are cut into "maximal subparts" (section
// 3.9), the cut that most decoders make, so that the number of U+FFFD agrees with theirs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pbserve::models {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8Part {
  kCharacter,   // a whole character
  kBroken,      // bytes that no continuation can repair
  kIncomplete,  // the beginning of a character, cut off by the end of the text
};

struct Utf8Step {
  Utf8Part part;
  uint32_t num_bytes;  // in [1, 4]
};

// What `text` begins with. REQUIRES: text is not empty.
Utf8Step first_utf8_step(std::string_view text);

// The offset of the first byte that does not belong to a whole character; npos for valid text.
size_t find_invalid_utf8(std::string_view text);

// The character at `offset` of valid UTF-8, and its length.
struct Utf8Char {
  char32_t value;
  uint32_t num_bytes;
};
Utf8Char utf8_char_at(std::string_view text, size_t offset);

// The character that ends before `offset` > 0 of valid UTF-8.
Utf8Char utf8_char_before(std::string_view text, size_t offset);

void append_utf8(char32_t value, std::string* text);

// White_Space of Unicode; what a regex calls \s.
bool is_white_space(char32_t value);

}  // namespace pbserve::models
