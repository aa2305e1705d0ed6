// Values as text: Python's str() and repr(), and json.dumps().
#pragma once

#include <optional>
#include <string>

#include "models/chat_template/runtime.h"
#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

std::string float_repr(double number);

// Appends str(value). The text of a list or dict that holds any content is content as a whole, and
// so is its JSON.
absl::Status write_text(Runtime& runtime, const Value& value, MarkedText* out);
absl::StatusOr<MarkedText> to_text(Runtime& runtime, const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; without it all is on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

absl::StatusOr<MarkedText> to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace pbserve::models::jinja
