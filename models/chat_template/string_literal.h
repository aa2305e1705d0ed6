// The escapes inside a template's string literals: those of Python.
#pragma once

#include <string>
#include <string_view>

#include "kernels/core/status.h"

namespace pbserve::models::jinja {

// `body` stands between the quotes; `line` is for errors. An unknown escape stays as it is.
absl::StatusOr<std::string> unescape(std::string_view body, int line);

}  // namespace pbserve::models::jinja
