// How text is cut into words, and which regular expressions are accepted.
#include "models/tokenizer/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "models/tokenizer/regex_dialect.h"

namespace pbserve::test {
namespace {

using models::Pretokenizer;
using models::Regex;
using models::SplitBehavior;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> words_of(const Pretokenizer& pretokenizer, std::string_view text) {
  Regex::Matcher matcher;
  std::vector<std::string> words;
  const absl::Status status =
      pretokenizer.split(text, matcher, [&](std::string_view word) { words.emplace_back(word); });
  EXPECT_TRUE(status.ok()) << status;
  return words;
}

struct Rule {
  std::string regex;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};

std::vector<std::string> split(const Rule& rule, std::string_view text) {
  auto regex = Regex::compile(rule.regex);
  EXPECT_TRUE(regex.ok()) << regex.status();
  Pretokenizer pretokenizer;
  pretokenizer.add_split({*std::move(regex), rule.behavior, rule.invert});
  return words_of(pretokenizer, text);
}

TEST(Pretokenizer, BehaviorsAreThoseOfTheTokenizersPackage) {
  const std::string text = "The-final--countdown";
  const auto with = [&](SplitBehavior behavior) { return split({"-", behavior}, text); };
  EXPECT_THAT(with(SplitBehavior::kRemoved), ElementsAre("The", "final", "countdown"));
  EXPECT_THAT(with(SplitBehavior::kIsolated),
              ElementsAre("The", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(with(SplitBehavior::kMergedWithPrevious),
              ElementsAre("The-", "final-", "-", "countdown"));
  EXPECT_THAT(with(SplitBehavior::kMergedWithNext),
              ElementsAre("The", "-final", "-", "-countdown"));
  EXPECT_THAT(with(SplitBehavior::kContiguous),
              ElementsAre("The", "-", "final", "--", "countdown"));
}

TEST(Pretokenizer, InvertSwapsWhatCountsAsTheMatch) {
  EXPECT_THAT(split({"[a-z]+", SplitBehavior::kRemoved, true}, "ab1cd2"), ElementsAre("ab", "cd"));
  EXPECT_THAT(split({"[a-z]+", SplitBehavior::kIsolated, true}, "ab1"), ElementsAre("ab", "1"));
}

TEST(Pretokenizer, EmptyMatchesCutWithoutWords) {
  EXPECT_THAT(split({"(?=b)"}, "abab"), ElementsAre("a", "ba", "b"));
  EXPECT_THAT(split({"x*"}, "axxb"), ElementsAre("a", "xx", "b"));
}

TEST(Pretokenizer, StepsRunInsideEachOther) {
  Pretokenizer pretokenizer;
  pretokenizer.add_split({*Regex::literal("."), SplitBehavior::kRemoved});
  pretokenizer.add_prefix_space();
  pretokenizer.add_split(*Pretokenizer::gpt2_split());
  EXPECT_THAT(words_of(pretokenizer, "It's here. ok.12 x"),
              ElementsAre(" It", "'s", " here", " ok", " 12", " x"));
  EXPECT_THAT(words_of(pretokenizer, ""), ElementsAre());
}

TEST(Pretokenizer, CharacterClassesAreOnigurumas) {
  const auto matches = [](const std::string& regex, std::string_view text) {
    return !split({regex, SplitBehavior::kRemoved, true}, text).empty();
  };
  EXPECT_FALSE(matches(R"(\s)", "\u180E"));  // PCRE2's own \s has it
  EXPECT_TRUE(matches(R"(\s)", "\u3000"));
  EXPECT_TRUE(matches(R"(\S)", "\u180E"));
  EXPECT_TRUE(matches(R"(\p{L})", "\U00031350"));  // a letter since Unicode 15
  EXPECT_TRUE(matches(R"([^\s\p{N}])", "\U00031350"));
  EXPECT_FALSE(matches(R"(\P{L})", "\U00031350"));
  EXPECT_TRUE(matches(R"(\d)", "\u0663"));
  EXPECT_TRUE(matches(R"((?i:s))", "\u017F"));  // the long s folds to s
  EXPECT_TRUE(matches(R"(\p{Han})", "\u4E2D"));
  EXPECT_FALSE(matches(R"(\p{Han})", "\u3001"));  // shared by scripts, of none
}

TEST(Pretokenizer, RegexesReadDifferentlyByTheTwoEnginesAreRefused) {
  for (const char* regex : {R"(\h)",     R"(\w+)",   R"(\bx)",    R"([[:alpha:]])",
                            R"([a&&b])", R"([\S])",  R"((?m:x))", R"((?<name>x))",
                            R"((*UTF))", R"((?i)x)", R"(x{,3})",  R"(x{2}+)",
                            R"(\1)",     R"(\pL)",   R"(\p{^L})", R"((?i:\p{Lu}))",
                            R"(\xFF)",   R"(\x{)",   "[a",        "a\\"}) {
    const auto translated = models::translate_regex(regex);
    EXPECT_EQ(translated.status().code(), absl::StatusCode::kUnimplemented) << regex;
    EXPECT_THAT(std::string(translated.status().message()), HasSubstr("at byte")) << regex;
  }
}

TEST(Pretokenizer, RegexesThatDoNotCompileAreRefused) {
  for (const std::string& regex : {std::string("("), std::string("a**b)"),
                                   std::string(R"(\p{NoSuchScript})"), std::string(100000, 'a')}) {
    EXPECT_EQ(Regex::compile(regex).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace pbserve::test
