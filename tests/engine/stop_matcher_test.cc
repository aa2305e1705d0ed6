// StopMatcher against a search in the whole text, for every way to cut the text into two pieces.
#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace pbserve::engine {
namespace {

using Stops = StopMatcher::Stops;
using Strings = std::vector<std::string>;

struct Found {
  std::string text;
  std::string stop_string;
  bool operator==(const Found&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Found& found) {
  return out << "\"" << found.text << "\" stopped by \"" << found.stop_string << "\"";
}

Found run(const Strings& stop_strings, const Strings& pieces) {
  StopMatcher matcher(stop_strings);
  Found found;
  for (const std::string& piece : pieces) {
    const StopMatcher::Match match = matcher.push(piece, Stops::kFind);
    found.text += match.text;
    found.stop_string = match.stop_string;
    if (!match.stop_string.empty()) return found;
  }
  found.text += matcher.take_held();
  return found;
}

// The definition: the match that ends first, of those the longest.
Found search(const Strings& stop_strings, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string head = text.substr(0, end);
    std::string longest;
    for (const std::string& stop : stop_strings) {
      if (head.ends_with(stop) && stop.size() > longest.size()) longest = stop;
    }
    if (!longest.empty()) return {text.substr(0, end - longest.size()), longest};
  }
  return {text, ""};
}

TEST(StopMatcher, CutsAtTheFirstMatch) {
  EXPECT_EQ(run({"END"}, {"one END two"}), (Found{"one ", "END"}));
  EXPECT_EQ(run({"END"}, {"one E", "N", "D two"}), (Found{"one ", "END"}));
  EXPECT_EQ(run({"END"}, {"one EN", "ENDING"}), (Found{"one EN", "END"}));
  EXPECT_EQ(run({"END"}, {"one EN"}), (Found{"one EN", ""}));
  EXPECT_EQ(run({"abcd", "bc"}, {"abcd"}), (Found{"a", "bc"}));
  EXPECT_EQ(run({"c", "abc"}, {"xabc"}), (Found{"x", "abc"}));
  EXPECT_EQ(run({}, {"anything"}), (Found{"anything", ""}));
}

TEST(StopMatcher, HoldsBackNoMoreThanAPartialMatch) {
  StopMatcher matcher({"aab", "\n\n"});
  EXPECT_EQ(matcher.push("xa", Stops::kFind).text, "x");
  EXPECT_EQ(matcher.push("a", Stops::kFind).text, "");
  EXPECT_EQ(matcher.push("a", Stops::kFind).text, "a");
  EXPECT_EQ(matcher.push("c\n", Stops::kFind).text, "aac");
  EXPECT_EQ(matcher.push("c", Stops::kFind).text, "\nc");
  EXPECT_EQ(matcher.take_held(), "");
}

TEST(StopMatcher, AnIgnoredMatchIsText) {
  StopMatcher matcher({"aa"});
  EXPECT_EQ(matcher.push("aa", Stops::kIgnore).stop_string, "");
  const StopMatcher::Match match = matcher.push("a", Stops::kFind);
  EXPECT_EQ(match.stop_string, "aa") << "it ends where matches count";
  EXPECT_EQ(match.text, "");
}

TEST(StopMatcher, PiecesDoNotChangeTheResult) {
  std::mt19937 random(7);
  const auto draw_text = [&](int len_max) {
    std::string text(1 + random() % len_max, 'a');
    for (char& letter : text) letter = static_cast<char>('a' + random() % 2);
    return text;
  };
  int num_matches = 0;
  for (int round = 0; round < 2000; ++round) {
    Strings stop_strings;
    for (size_t i = random() % 3 + 1; i > 0; --i) stop_strings.push_back(draw_text(6) + "b");
    const std::string text = draw_text(16);
    const Found expected = search(stop_strings, text);
    num_matches += expected.stop_string.empty() ? 0 : 1;
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      ASSERT_EQ(run(stop_strings, {text.substr(0, cut), text.substr(cut)}), expected)
          << text << " cut at " << cut << ", first stop string " << stop_strings[0];
    }
    Strings letters;
    for (const char letter : text) letters.emplace_back(1, letter);
    ASSERT_EQ(run(stop_strings, letters), expected) << text << " letter by letter";
  }
  EXPECT_GT(num_matches, 500);
  EXPECT_LT(num_matches, 1900);
}

}  // namespace
}  // namespace pbserve::engine
