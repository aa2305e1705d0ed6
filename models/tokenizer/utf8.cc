#include "models/tokenizer/utf8.h"

#include <cstring>

namespace pbserve::models {
namespace {

uint8_t byte_at(std::string_view text, size_t offset) { return static_cast<uint8_t>(text[offset]); }

struct LeadByte {
  uint32_t num_bytes;  // 0: cannot begin a character
  uint8_t second_min;
  uint8_t second_max;
};

LeadByte classify_lead(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};  // shorter forms exist for what lies below
  if (lead == 0xED) return {3, 0x80, 0x9F};  // surrogates lie above
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};  // U+10FFFF is the last character
  return {0, 0, 0};
}

}  // namespace

Utf8Step first_utf8_step(std::string_view text) {
  const LeadByte lead = classify_lead(byte_at(text, 0));
  if (lead.num_bytes == 0) return {Utf8Part::kBroken, 1};
  uint8_t min = lead.second_min;
  uint8_t max = lead.second_max;
  for (uint32_t i = 1; i < lead.num_bytes; ++i) {
    if (i == text.size()) return {Utf8Part::kIncomplete, i};
    const uint8_t byte = byte_at(text, i);
    if (byte < min || byte > max) return {Utf8Part::kBroken, i};
    min = 0x80;
    max = 0xBF;
  }
  return {Utf8Part::kCharacter, lead.num_bytes};
}

size_t find_invalid_utf8(std::string_view text) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  size_t at = 0;
  while (at < text.size()) {
    // Eight bytes of ASCII at a time: most text is mostly that.
    if (uint64_t word; at + sizeof(word) <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof(word));
      if ((word & kHighBits) == 0) {
        at += sizeof(word);
        continue;
      }
    }
    const Utf8Step step = first_utf8_step(text.substr(at));
    if (step.part != Utf8Part::kCharacter) return at;
    at += step.num_bytes;
  }
  return std::string_view::npos;
}

Utf8Char utf8_char_at(std::string_view text, size_t offset) {
  const uint32_t lead = byte_at(text, offset);
  if (lead < 0x80) return {lead, 1};
  const auto tail = [&](size_t i) { return byte_at(text, offset + i) & 0x3Fu; };
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | tail(1), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3};
  return {(lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4};
}

Utf8Char utf8_char_before(std::string_view text, size_t offset) {
  size_t start = offset - 1;
  while ((byte_at(text, start) & 0xC0) == 0x80) --start;
  return utf8_char_at(text, start);
}

void append_utf8(char32_t value, std::string* text) {
  const auto push = [&](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (value < 0x80) return push(value);
  if (value < 0x800) {
    push(0xC0 | value >> 6);
  } else {
    if (value < 0x10000) {
      push(0xE0 | value >> 12);
    } else {
      push(0xF0 | value >> 18);
      push(0x80 | (value >> 12 & 0x3F));
    }
    push(0x80 | (value >> 6 & 0x3F));
  }
  push(0x80 | (value & 0x3F));
}

bool is_white_space(char32_t value) {
  if (value < 0x80) return value == ' ' || (value >= '\t' && value <= '\r');
  return value == 0x85 || value == 0xA0 || value == 0x1680 ||
         (value >= 0x2000 && value <= 0x200A) || value == 0x2028 || value == 0x2029 ||
         value == 0x202F || value == 0x205F || value == 0x3000;
}

}  // namespace pbserve::models
