// Error texts from pieces. (The distribution's absl::StrCat may be built without std::string_view.)
#pragma once

#include <sstream>
#include <string>

#include "kernels/core/status.h"

namespace pbserve::models {

template <class... Pieces>
std::string message(const Pieces&... pieces) {
  std::ostringstream text;
  (text << ... << pieces);
  return text.str();
}

// A file or an argument that says something wrong.
template <class... Pieces>
absl::Status invalid(const Pieces&... pieces) {
  return absl::InvalidArgumentError(message(pieces...));
}

}  // namespace pbserve::models
