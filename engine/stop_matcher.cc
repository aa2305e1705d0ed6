#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"

namespace pbserve::engine {

StopMatcher::StopMatcher(const std::vector<std::string>& stop_strings) {
  for (const std::string& text : stop_strings) {
    check(!text.empty(), "empty stop string");
    std::vector<size_t> borders(text.size(), 0);
    for (size_t i = 1; i < text.size(); ++i) {
      size_t border = borders[i - 1];
      while (border > 0 && text[border] != text[i]) border = borders[border - 1];
      borders[i] = border + (text[border] == text[i] ? 1 : 0);
    }
    patterns_.push_back({.text = text, .borders = std::move(borders)});
  }
}

void StopMatcher::Pattern::advance(char byte) {
  if (is_complete()) num_matched = borders.back();
  while (num_matched > 0 && text[num_matched] != byte) num_matched = borders[num_matched - 1];
  if (text[num_matched] == byte) ++num_matched;
}

StopMatcher::Match StopMatcher::push(std::string_view piece, Stops stops) {
  Match match;
  for (const char byte : piece) {
    held_.push_back(byte);
    const Pattern* longest = nullptr;
    for (Pattern& pattern : patterns_) {
      pattern.advance(byte);
      if (pattern.is_complete() && (!longest || pattern.text.size() > longest->text.size())) {
        longest = &pattern;
      }
    }
    if (longest && stops == Stops::kFind) {
      held_.resize(held_.size() - longest->text.size());
      match.text = take_held();
      match.stop_string = longest->text;
      return match;
    }
  }
  size_t num_held = 0;
  for (const Pattern& pattern : patterns_) {
    const size_t num_open = pattern.is_complete() ? pattern.borders.back() : pattern.num_matched;
    num_held = std::max(num_held, num_open);
  }
  match.text = held_.substr(0, held_.size() - num_held);
  held_.erase(0, match.text.size());
  return match;
}

std::string StopMatcher::take_held() { return std::exchange(held_, {}); }

}  // namespace pbserve::engine
