// The parts of a chat request, from JSON to the values that templates expect. As vLLM does it:
// a list of text parts becomes one text, joined by newlines; content that is null or absent
// becomes the empty text; the arguments of a tool call become an object, also where the client
// sent them back as the string of JSON that it received.
#pragma once

#include <string>

#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

// Errors are kInvalidArgument and name the message by its index.
absl::StatusOr<Value> parse_messages(const std::string& json);
absl::StatusOr<Value> parse_tools(const std::string& json);  // none if `json` is empty

}  // namespace pbserve::models::jinja
