// Template text to syntax tree. Everything that this subset of Jinja does not have is refused here
// by name, as far as it can be seen before rendering.
#pragma once

#include <string_view>

#include "models/chat_template/ast.h"

namespace pbserve::models::jinja {

// kInvalidArgument: not Jinja. kUnimplemented: names the construct and its line.
absl::StatusOr<Block> parse_template(std::string_view source);

}  // namespace pbserve::models::jinja
