// A part of a text that is named by where it stands.
#pragma once

#include <cstddef>

namespace pbserve::models {

struct TextSpan {  // bytes [begin, end)
  size_t begin = 0;
  size_t end = 0;

  friend bool operator==(const TextSpan&, const TextSpan&) = default;
};

}  // namespace pbserve::models
