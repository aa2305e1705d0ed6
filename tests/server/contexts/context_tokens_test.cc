// Parts of a text have the tokens that the text has as a whole, whatever the parts.
#include "server/contexts/context_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kBegin = 1000;

// A word with the blank before it is a token, the sum of its bytes; other bytes are tokens of
// their own, but for runs of blank lines, which are one.
std::vector<int32_t> words_of(const std::string& text, bool special) {
  std::vector<int32_t> ids;
  if (special) ids.push_back(kBegin);
  for (size_t i = 0; i < text.size();) {
    const bool blank = text[i] == ' ' && i + 1 < text.size() && absl::ascii_isalpha(text[i + 1]);
    size_t end = i + (blank ? 1 : 0);
    if (absl::ascii_isalpha(text[end])) {
      while (end < text.size() && absl::ascii_isalpha(text[end])) ++end;
    } else if (text[end] == '\n') {
      while (end < text.size() && text[end] == '\n') ++end;
    } else {
      ++end;
    }
    int32_t id = 0;
    for (size_t k = i; k < end; ++k) id = (id * 31 + text[k]) % 997;
    ids.push_back(id);
    i = end;
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> words(const engine::Prompt& prompt, bool special) {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&prompt)) return *ids;
  return words_of(std::get<std::string>(prompt), special);
}

// One that joins what others split: as SentencePiece does where it puts a blank before a text.
absl::StatusOr<std::vector<int32_t>> one_token(const engine::Prompt& prompt, bool) {
  const auto& text = std::get<std::string>(prompt);
  int32_t id = 7;
  for (const char c : text) id = (id * 31 + c) % 997;
  return std::vector<int32_t>{id, static_cast<int32_t>(text.size())};
}

void add(const Tokenize& tokenize, const engine::Prompt& part, ContextTokens* tokens) {
  auto growth = tokens->grown_by(tokenize, part);
  ASSERT_TRUE(growth.ok()) << growth.status();
  tokens->commit(*std::move(growth));
}

const std::string kText =
    "The grass is green.\n\nThe sky, they say, is blue:\n 1. here we go  again\nThere and back";

TEST(ContextTokens, AnyPartsOfATextHaveItsTokens) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    ContextTokens tokens(true);
    for (size_t i = 0; i < kText.size();) {
      const size_t bytes = 1 + random() % 20;
      add(words, kText.substr(i, bytes), &tokens);
      i += bytes;
    }
    EXPECT_EQ(*tokens.followed_by(words, std::string("wards we go")),
              words_of(kText + "wards we go", true));
    EXPECT_GT(tokens.decided().size(), 15u);
  }
}

TEST(ContextTokens, TheEndOfATextIsDecidedByWhatFollows) {
  ContextTokens tokens(false);
  add(words, std::string("one two thr"), &tokens);
  EXPECT_EQ(tokens.tail(), " thr");
  EXPECT_EQ(tokens.decided(), words_of("one two", false));
  EXPECT_EQ(*tokens.followed_by(words, std::string("ee")), words_of("one two three", false));
  EXPECT_EQ(*tokens.followed_by(words, std::string()), words_of("one two thr", false));
  auto expected = words_of("one two thr", false);
  expected.push_back(5);
  EXPECT_EQ(*tokens.followed_by(words, std::vector<int32_t>{5}), expected);
}

TEST(ContextTokens, IdsAfterATextEndIt) {
  ContextTokens tokens(true);
  add(words, std::string("one two"), &tokens);
  add(words, std::vector<int32_t>{4, 5}, &tokens);
  auto expected = words_of("one two", true);
  expected.insert(expected.end(), {4, 5});
  EXPECT_EQ(tokens.decided(), expected);
  EXPECT_THAT(tokens.tail(), IsEmpty());
  add(words, std::string("x"), &tokens);  // nothing is put before it again
  expected.push_back(words_of("x", false)[0]);
  EXPECT_EQ(*tokens.followed_by(words, std::string()), expected);
}

TEST(ContextTokens, IdsAloneStayAsTheyAre) {
  ContextTokens tokens(true);
  add(words, std::vector<int32_t>{4, 5}, &tokens);
  EXPECT_THAT(tokens.decided(), ElementsAre(4, 5));
}

TEST(ContextTokens, NothingIsDecidedWhereTheTokenizerDoesNotSplit) {
  ContextTokens tokens(true);
  for (size_t i = 0; i < kText.size(); i += 5) add(one_token, kText.substr(i, 5), &tokens);
  EXPECT_THAT(tokens.decided(), IsEmpty());
  EXPECT_EQ(*tokens.followed_by(one_token, std::string("!")), *one_token(kText + "!", true));
}

TEST(ContextTokens, ATextThatCannotBeCutIsNotTokenisedAtEveryPart) {
  int64_t num_bytes = 0;
  const Tokenize counting = [&](const engine::Prompt& prompt, bool special) {
    num_bytes += std::ssize(std::get<std::string>(prompt));
    return one_token(prompt, special);
  };
  ContextTokens tokens(false);
  constexpr int64_t kParts = 2000;
  for (int64_t i = 0; i < kParts; ++i) add(counting, std::string("ab cd "), &tokens);
  EXPECT_LT(num_bytes, 6 * kParts * 6);
}

TEST(ContextTokens, BytesAreThoseThatAreKept) {
  ContextTokens tokens(false);
  const auto growth = tokens.grown_by(words, std::vector<int32_t>(80, 1));
  EXPECT_EQ(tokens.bytes_with(*growth), 90 * 4);
}

}  // namespace
}  // namespace pbserve::server
