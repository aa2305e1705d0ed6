#include "models/tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "kernels/core/check.h"
#include "models/tokenizer/utf8.h"

namespace pbserve::models {
namespace {

// Below: no character combines or decomposes differently. Above: planes 3 to 16, which hold no
// canonical mappings and no combining classes.
constexpr int32_t kFirstSuspect = 0x300;
constexpr int32_t kEndSuspects = 0x30000;
constexpr uint8_t kFirstSuspectLead = 0xCC;  // the first byte of U+0300

constexpr auto kDecompose = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE);
constexpr auto kCompose = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
constexpr size_t kDecomposedMax = 16;  // code points of one character; Unicode needs 4

// Characters that Unicode 10 to 16 gave a combining class or a composition. The `tokenizers`
// package normalises by Unicode 9, where they are like unassigned ones; so did the models'
// training.
struct Range {
  int32_t first;
  int32_t last;
};
constexpr auto kLateCharacters = std::to_array<Range>(
    {{0x7FD, 0x7FD},     {0x897, 0x897},     {0x898, 0x89F},     {0x8CA, 0x8D3},
     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},
     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
     {0x105C9, 0x105C9}, {0x105E4, 0x105E4}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D},
     {0x10EAB, 0x10EAC}, {0x10EFC, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
     {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11383, 0x11391}, {0x113C5, 0x113C8},
     {0x113CE, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11938, 0x11938},
     {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
     {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
     {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16121, 0x16128}, {0x1612F, 0x1612F},
     {0x16D68, 0x16D6A}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
     {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}});

bool is_late(int32_t value) {
  return std::any_of(kLateCharacters.begin(), kLateCharacters.end(),
                     [&](Range range) { return range.first <= value && value <= range.last; });
}

using Decomposed = std::array<int32_t, kDecomposedMax>;

size_t decompose(int32_t value, Decomposed* out) {
  int last_boundary = 0;
  const auto size =
      utf8proc_decompose_char(value, out->data(), kDecomposedMax, kDecompose, &last_boundary);
  check(size > 0 && size <= static_cast<utf8proc_ssize_t>(kDecomposedMax),
        "utf8proc decomposes a character");
  return static_cast<size_t>(size);
}

int combining_class(int32_t value) {
  const int own = utf8proc_get_property(value)->combining_class;
  return own != 0 && is_late(value) ? 0 : own;
}

}  // namespace

NfcNormalizer::NfcNormalizer() : suspects_(kEndSuspects / 64, 0) {
  for (int32_t value = 0; value < kEndSuspects; ++value) {
    const bool is_surrogate = value >= 0xD800 && value < 0xE000;
    if (is_surrogate || is_late(value)) continue;
    if (combining_class(value) != 0) mark(value);
    Decomposed parts;
    const size_t num_parts = decompose(value, &parts);
    if (num_parts == 1 && parts[0] == value) continue;
    // What stands last in a decomposition may be absorbed by a character before it.
    if (num_parts > 1) mark(parts[num_parts - 1]);
    const auto size =
        utf8proc_normalize_utf32(parts.data(), static_cast<utf8proc_ssize_t>(num_parts), kCompose);
    if (size != 1 || parts[0] != value) mark(value);
  }
}

void NfcNormalizer::mark(int32_t value) {
  suspects_[static_cast<size_t>(value) / 64] |= uint64_t{1} << (value % 64);
}

bool NfcNormalizer::is_suspect(char32_t value) const {
  return value >= kFirstSuspect && value < kEndSuspects &&
         (suspects_[value / 64] >> (value % 64) & 1) != 0;
}

std::string_view NfcNormalizer::normalize(std::string_view text, std::string* buffer) const {
  std::vector<int32_t> codepoints;
  buffer->clear();
  size_t copied = 0;         // text[0, copied) is in the buffer, normalised
  size_t segment_start = 0;  // of the character that begins the current segment
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < kFirstSuspectLead) {
      segment_start = at;
      at += static_cast<uint8_t>(text[at]) < 0x80 ? 1 : 2;
      continue;
    }
    Utf8Char next = utf8_char_at(text, at);
    if (!is_suspect(next.value)) {
      segment_start = at;
      at += next.num_bytes;
      continue;
    }
    do {
      at += next.num_bytes;
      if (at == text.size()) break;
      next = utf8_char_at(text, at);
    } while (is_suspect(next.value));
    buffer->append(text, copied, segment_start - copied);
    append_normalized(text.substr(segment_start, at - segment_start), &codepoints, buffer);
    copied = segment_start = at;
  }
  if (copied == 0) return text;
  buffer->append(text, copied, text.size() - copied);
  return *buffer;
}

void NfcNormalizer::append_normalized(std::string_view segment, std::vector<int32_t>* codepoints,
                                      std::string* out) {
  codepoints->clear();
  Decomposed parts;
  for (size_t at = 0; at < segment.size();) {
    const Utf8Char next = utf8_char_at(segment, at);
    const size_t num_parts = decompose(static_cast<int32_t>(next.value), &parts);
    codepoints->insert(codepoints->end(), parts.begin(), parts.begin() + num_parts);
    at += next.num_bytes;
  }
  // Canonical order. utf8proc's own sort swaps neighbours: quadratic in a long run of marks.
  for (auto from = codepoints->begin(); from != codepoints->end();) {
    const auto is_starter = [](int32_t value) { return combining_class(value) == 0; };
    const auto to = std::find_if(from, codepoints->end(), is_starter);
    std::stable_sort(from, to,
                     [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    from = std::find_if_not(to, codepoints->end(), is_starter);
  }
  const auto size = utf8proc_normalize_utf32(
      codepoints->data(), static_cast<utf8proc_ssize_t>(codepoints->size()), kCompose);
  check(size >= 0, "utf8proc composes a segment");
  for (size_t i = 0; i < static_cast<size_t>(size); ++i) {
    append_utf8(static_cast<char32_t>((*codepoints)[i]), out);
  }
}

}  // namespace pbserve::models
