#include "models/tokenizer/nfc.h"

#include <gtest/gtest.h>

#include <string>

namespace pbserve::test {
namespace {

std::string nfc(std::string_view text) {
  static const models::NfcNormalizer normalizer;
  std::string buffer;
  return std::string(normalizer.normalize(text, &buffer));
}

TEST(Nfc, ComposesAndOrders) {
  EXPECT_EQ(nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(nfc("xe\u0301y"), "x\u00E9y");
  EXPECT_EQ(nfc("o\u0302\u0301"), "\u1ED1");
  EXPECT_EQ(nfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(nfc("\u212B"), "\u00C5");              // a singleton
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093C");        // excluded from composition
  EXPECT_EQ(nfc("\u1100\u1161\u11A8"), "\uAC01");  // Hangul
  EXPECT_EQ(nfc("\uAC00\u11A8"), "\uAC01");
  EXPECT_EQ(nfc("\u0301"), "\u0301");  // nothing to combine with
  EXPECT_EQ(nfc("a\u0327\u0301b\u0301"), "\u00E1\u0327b\u0301");
}

TEST(Nfc, NormalTextIsNotCopied) {
  const models::NfcNormalizer normalizer;
  std::string buffer;
  for (std::string_view text : {"", "plain", "na\u00EFve \u4E2D\u6587 \U0001F600 \uD55C"}) {
    EXPECT_EQ(normalizer.normalize(text, &buffer).data(), text.data());
  }
}

TEST(Nfc, CharactersLaterThanUnicode9StayWhereTheyAre) {
  EXPECT_EQ(nfc("x\U00011839\u031E"), "x\U00011839\u031E");
  EXPECT_EQ(nfc("\U00011935\U00011930"), "\U00011935\U00011930");
}

TEST(Nfc, IsIdempotentOnMixedMarks) {
  const char* const marks[] = {"\u0301", "\u0323", "\u0327", "\u0334",
                               "\u0345", "\u05B0", "\u093C"};
  uint32_t state = 1;
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (int j = 0; j < 12; ++j) {
      state = state * 1664525 + 1013904223;
      text += state >> 28 < 4 ? std::string(1, static_cast<char>('a' + (state >> 24 & 15)))
                              : marks[(state >> 20) % 7];
    }
    EXPECT_EQ(nfc(nfc(text)), nfc(text));
  }
}

}  // namespace
}  // namespace pbserve::test
