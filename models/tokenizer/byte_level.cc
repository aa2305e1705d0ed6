#include "models/tokenizer/byte_level.h"

#include "models/tokenizer/utf8.h"

namespace pbserve::models {
namespace {

// Bytes that are printable characters of Latin-1 spell themselves; the other 68 take the
// characters from U+0100 on, in order.
constexpr char32_t kFirstSubstitute = 0x100;

constexpr bool spells_itself(char32_t value) {
  return (value >= '!' && value <= '~') || (value >= 0xA1 && value <= 0xAC) ||
         (value >= 0xAE && value <= 0xFF);
}

struct Alphabet {
  char32_t character[256] = {};
  unsigned char substituted[256] = {};
  uint32_t num_substituted = 0;

  constexpr Alphabet() {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      if (spells_itself(byte)) {
        character[byte] = byte;
      } else {
        character[byte] = kFirstSubstitute + num_substituted;
        substituted[num_substituted++] = static_cast<unsigned char>(byte);
      }
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

std::optional<std::string> byte_level_decode(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const Utf8Char next = utf8_char_at(token, at);
    if (spells_itself(next.value)) {
      bytes.push_back(static_cast<char>(next.value));
    } else if (next.value >= kFirstSubstitute &&
               next.value < kFirstSubstitute + kAlphabet.num_substituted) {
      bytes.push_back(static_cast<char>(kAlphabet.substituted[next.value - kFirstSubstitute]));
    } else {
      return std::nullopt;
    }
    at += next.num_bytes;
  }
  return bytes;
}

std::string byte_level_encode(unsigned char byte) {
  std::string text;
  append_utf8(kAlphabet.character[byte], &text);
  return text;
}

}  // namespace pbserve::models
