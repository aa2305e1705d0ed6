// What the tokenizer tests share: the fixture files (made by make_fixtures.py) and the real
// tokenizers, which are not part of the repository.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/tokenizer/tokenizer.h"
#include "tests/support/temp_dir.h"

namespace pbserve::test {

// The ids of one string: all of them, or for a long run their count and hash.
struct ExpectedIds {
  std::vector<int32_t> ids;
  std::optional<size_t> count;
  std::string fnv1a;

  // What differs, or nothing.
  std::optional<std::string> difference(std::span<const int32_t> actual) const;
};

struct ExpectedText {
  std::vector<int32_t> ids;
  std::string all;                  // special tokens included
  std::optional<std::string> skip;  // and left out
};

struct TokenizerFixture {
  std::vector<std::optional<ExpectedIds>> ids;   // by string; nothing where it is left out
  std::map<size_t, std::vector<int32_t>> plain;  // special tokens in the text are text
  std::vector<ExpectedText> decoded;
};

// fixtures/strings.json, runs expanded.
std::vector<std::string> read_fixture_strings();
TokenizerFixture read_fixture(const std::string& name);
std::string fixture_path(const std::string& file);

// The model's folder, unpacked from $PBSERVE_TOKENIZERS/<name>.tar.xz (default
// ../shared/tokenizers beside the source) into `dir`; nothing if the archive is not there.
std::optional<std::string> unpack_tokenizer(const std::string& name, const TempDir& dir);

// Decodes one id at a time, checks that no piece ends inside a character, returns the whole.
std::string decode_in_steps(const models::Tokenizer& tokenizer, std::span<const int32_t> ids,
                            bool skip_special_tokens);

}  // namespace pbserve::test
