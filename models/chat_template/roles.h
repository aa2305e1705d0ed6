// Which roles a template prints. Most templates are a chain of tests for the roles they were made
// for, and leave a message of any other out without a word: found here by rendering probes, and
// said to the client.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "models/chat_template/chat_template.h"
#include "models/chat_template/marked_text.h"
#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

class Roles {
 public:
  // Renders with the template, roles as they are.
  using Render = absl::FunctionRef<absl::StatusOr<MarkedText>(const ChatRequest&)>;

  Roles() = default;  // prints none
  // `source` is the template's text; `render` is called some times for each role that it may name.
  Roles(std::string_view source, Render render);

  // The messages with "developer", which OpenAI's clients say for "system", as "system" where the
  // template does not name it. kInvalidArgument names a role that the template does not print, and
  // those that it does. REQUIRES: messages is what parse_messages() gave.
  absl::StatusOr<Value> fit(const Value& messages) const;

 private:
  bool is_printed(std::string_view role) const;
  absl::StatusOr<std::string> fit_role(const std::string& role, const std::string& where) const;

  std::vector<std::string> named_;    // strings of the template that may be roles
  std::vector<std::string> printed_;  // the usual roles first, then of named_
  size_t num_usual_printed_ = 0;
  bool prints_unnamed_ = false;  // what it does with a role that it does not name
};

}  // namespace pbserve::models::jinja
