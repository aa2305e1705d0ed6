// Unicode normalisation form C, in time linear in the text (n log n inside one run of combining
// marks), on the character data of utf8proc. Text that is in the form already is not copied.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pbserve::models {

class NfcNormalizer {
 public:
  NfcNormalizer();

  // The normalised text: `text` itself, or a view of `buffer`. REQUIRES: text is valid UTF-8.
  std::string_view normalize(std::string_view text, std::string* buffer) const;

 private:
  // A character that may change or be moved or absorbed by its neighbours (Quick_Check is not
  // Yes, or the combining class is not 0). Any other character begins a segment of its own.
  bool is_suspect(char32_t value) const;
  void mark(int32_t value);
  static void append_normalized(std::string_view segment, std::vector<int32_t>* codepoints,
                                std::string* out);

  std::vector<uint64_t> suspects_;  // one bit per character
};

}  // namespace pbserve::models
