// StopMatcher: finds stop strings in a text that comes in pieces, and holds back what may still
// become one. Matching is byte by byte (Knuth-Morris-Pratt), so the borders of the pieces do not
// change what is found. Owned by one request.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pbserve::engine {

class StopMatcher {
 public:
  // REQUIRES: no string is empty.
  explicit StopMatcher(const std::vector<std::string>& stop_strings);

  struct Match {
    std::string text;         // what came before the stop string and was not released yet
    std::string stop_string;  // empty: none ended in this piece
  };

  enum class Stops { kFind, kIgnore };  // kIgnore: a stop string that ends in this piece is text

  // The stop string that ends first wins; of those that end together the longest. What follows it
  // is dropped, and nothing may be pushed after it.
  Match push(std::string_view piece, Stops stops);

  // What is still held back, at the end of the text.
  std::string take_held();

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> borders;  // [i]: longest proper prefix of text[0, i] that is its suffix
    size_t num_matched = 0;       // longest prefix of `text` that the input ends with

    void advance(char byte);
    bool is_complete() const { return num_matched == text.size(); }
  };

  std::vector<Pattern> patterns_;
  std::string held_;  // the input's end, from the earliest partial match on
};

}  // namespace pbserve::engine
