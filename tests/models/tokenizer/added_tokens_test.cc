#include "models/tokenizer/added_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace pbserve::test {
namespace {

using models::AddedToken;
using models::AddedTokenFinder;
using testing::ElementsAre;

// Text as it is, tokens as "<id>:<what they took>".
std::vector<std::string> pieces(std::vector<AddedToken> tokens, std::string_view text,
                                AddedTokenFinder::Options options = {}) {
  std::vector<std::string> pieces;
  const AddedTokenFinder finder(std::move(tokens));
  const absl::Status status =
      finder.split(text, options, [&](std::string_view piece, std::optional<int32_t> id) {
        pieces.push_back((id ? std::to_string(*id) + ":" : "") + std::string(piece));
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok());
  return pieces;
}

TEST(AddedTokens, LeftmostThenLongestWins) {
  const std::vector<AddedToken> tokens = {
      {.id = 1, .content = "<a>"}, {.id = 2, .content = "<a><b>"}, {.id = 3, .content = "><"}};
  EXPECT_THAT(pieces(tokens, "x<a><b>y"), ElementsAre("x", "2:<a><b>", "y"));
  EXPECT_THAT(pieces(tokens, "<a><c>"), ElementsAre("1:<a>", "<c>"));
  EXPECT_THAT(pieces(tokens, "><a>"), ElementsAre("3:><", "a>"));
  EXPECT_THAT(pieces(tokens, ""), ElementsAre());
  EXPECT_THAT(pieces({}, "<a>"), ElementsAre("<a>"));
}

TEST(AddedTokens, ThePrefixOfATokenIsText) {
  EXPECT_THAT(pieces({{.id = 1, .content = "<|end|>"}}, "<|end<|end|>"),
              ElementsAre("<|end", "1:<|end|>"));
}

TEST(AddedTokens, SpecialTokensCanBeLeftAsText) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "<s>", .special = true},
                                          {.id = 2, .content = "<t>"}};
  EXPECT_THAT(pieces(tokens, "<s><t>"), ElementsAre("1:<s>", "2:<t>"));
  EXPECT_THAT(pieces(tokens, "<s><t>", {.find_special = false}), ElementsAre("<s>", "2:<t>"));
}

// What a client wrote holds no special token, and none reaches into it from the text around it.
TEST(AddedTokens, NoneThatIsSpecialReachesIntoContent) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "<s>", .special = true},
                                          {.id = 2, .content = "<s>x", .special = true},
                                          {.id = 3, .content = "<t>"},
                                          {.id = 4, .content = "y<s>", .special = true}};
  const auto with = [&](std::string_view text, std::vector<models::TextSpan> content) {
    return pieces(tokens, text, {.content = content});
  };
  EXPECT_THAT(with("<s><s><s>", {{3, 6}}), ElementsAre("1:<s>", "<s>", "1:<s>"));
  EXPECT_THAT(with("<s><s><s>", {{0, 2}, {8, 9}}), ElementsAre("<s>", "1:<s>", "<s>"));
  EXPECT_THAT(with("<t><s>", {{0, 6}}), ElementsAre("3:<t>", "<s>"));
  // Content cannot lengthen or hide what stands beside it.
  EXPECT_THAT(with("<s>x", {{3, 4}}), ElementsAre("1:<s>", "x"));
  EXPECT_THAT(with("y<s>", {{0, 1}}), ElementsAre("y", "1:<s>"));
  EXPECT_THAT(with("<s>x", {{4, 4}}), ElementsAre("2:<s>x"));
}

TEST(AddedTokens, StrippingTakesWhiteSpaceAlong) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "<l>", .lstrip = true},
                                          {.id = 2, .content = "<r>", .rstrip = true}};
  EXPECT_THAT(pieces(tokens, "a \u3000\n<l> b"), ElementsAre("a", "1: \u3000\n<l>", " b"));
  EXPECT_THAT(pieces(tokens, "a <r>\t\u2003b"), ElementsAre("a ", "2:<r>\t\u2003", "b"));
  // The space behind <r> is taken once.
  EXPECT_THAT(pieces(tokens, "<r> <l>"), ElementsAre("2:<r> ", "1:<l>"));
}

TEST(AddedTokens, SingleWordsStandBetweenWhatIsNoWord) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "cat", .single_word = true}};
  EXPECT_THAT(pieces(tokens, "cat, cat"), ElementsAre("1:cat", ", ", "1:cat"));
  EXPECT_THAT(pieces(tokens, "concat cats"), ElementsAre("concat cats"));
  EXPECT_THAT(pieces(tokens, "\u00E9cat cat_ cat\u0301"), ElementsAre("\u00E9cat cat_ cat\u0301"));
  EXPECT_THAT(pieces(tokens, "\u3002cat-"), ElementsAre("\u3002", "1:cat", "-"));
}

}  // namespace
}  // namespace pbserve::test
