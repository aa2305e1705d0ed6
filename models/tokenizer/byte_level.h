// The alphabet of byte-level BPE: every byte is spelled as one printable character in
// tokenizer.json (GPT-2's table), so that a vocabulary of text can hold any bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pbserve::models {

// The bytes that `token` spells; nothing if a character is outside the alphabet.
// REQUIRES: token is valid UTF-8.
std::optional<std::string> byte_level_decode(std::string_view token);

// The spelling of one byte.
std::string byte_level_encode(unsigned char byte);

}  // namespace pbserve::models
