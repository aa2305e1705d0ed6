// JSON text to a template value, as Python's json.loads() reads it.
#pragma once

#include <string>

#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

// `what` names the text in errors. Keys keep their order; of equal keys the last one counts.
// Numbers that fit neither 64-bit integers nor doubles are refused.
absl::StatusOr<Value> parse_json(const std::string& text, const std::string& what);

}  // namespace pbserve::models::jinja
