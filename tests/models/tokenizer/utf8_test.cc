#include "models/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace pbserve::test {
namespace {

using namespace models;
using std::string_literals::operator""s;

TEST(Utf8, EveryCharacterIsWholeAndReadsBack) {
  for (char32_t value = 0; value <= 0x10FFFF; ++value) {
    if (value >= 0xD800 && value <= 0xDFFF) continue;
    std::string text = "x";
    append_utf8(value, &text);
    const std::string_view character = std::string_view(text).substr(1);
    const Utf8Step step = first_utf8_step(character);
    ASSERT_EQ(step.part, Utf8Part::kCharacter) << std::hex << uint32_t{value};
    ASSERT_EQ(step.num_bytes, character.size());
    ASSERT_EQ(utf8_char_at(text, 1).value, value);
    ASSERT_EQ(utf8_char_before(text, text.size()).value, value);
    ASSERT_EQ(find_invalid_utf8(text), std::string::npos);
    for (size_t size = 1; size < character.size(); ++size) {
      ASSERT_EQ(first_utf8_step(character.substr(0, size)).part, Utf8Part::kIncomplete);
    }
  }
}

TEST(Utf8, BrokenBytesAreCutIntoMaximalSubparts) {
  const auto broken = [](const std::string& text) {
    const Utf8Step step = first_utf8_step(text);
    EXPECT_EQ(step.part, Utf8Part::kBroken);
    return step.num_bytes;
  };
  EXPECT_EQ(broken("\x80"), 1u);              // a continuation alone
  EXPECT_EQ(broken("\xC0\xAF"), 1u);          // an overlong slash
  EXPECT_EQ(broken("\xE0\x80\x80"), 1u);      // overlong
  EXPECT_EQ(broken("\xED\xA0\x80"), 1u);      // a surrogate
  EXPECT_EQ(broken("\xF4\x90\x80\x80"), 1u);  // beyond U+10FFFF
  EXPECT_EQ(broken("\xFF"), 1u);
  EXPECT_EQ(broken("\xC3x"), 1u);
  EXPECT_EQ(broken("\xE2\x82x"), 2u);
  EXPECT_EQ(broken("\xF0\x9F\x98x"), 3u);
}

TEST(Utf8, TheFirstInvalidByteIsFoundWhereverItStands) {
  for (size_t offset = 0; offset < 40; ++offset) {
    std::string text(40, 'a');
    text[offset] = '\xE2';
    EXPECT_EQ(find_invalid_utf8(text), offset);
  }
  EXPECT_EQ(find_invalid_utf8("12345678\xC3"), 8u);
  EXPECT_EQ(find_invalid_utf8("a\0b"s), std::string::npos);
}

TEST(Utf8, WhiteSpaceIsUnicodes) {
  size_t count = 0;
  for (char32_t value = 0; value <= 0x10FFFF; ++value) count += is_white_space(value) ? 1 : 0;
  EXPECT_EQ(count, 25u);
  EXPECT_TRUE(is_white_space(0x3000));
  EXPECT_FALSE(is_white_space(0x180E));
  EXPECT_FALSE(is_white_space(0x200B));
}

}  // namespace
}  // namespace pbserve::test
