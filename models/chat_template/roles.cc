#include "models/chat_template/roles.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "models/chat_template/lexer.h"
#include "models/field_error.h"

namespace pbserve::models::jinja {
namespace {

constexpr std::string_view kUsualRoles[] = {"system",    "developer", "user",
                                            "assistant", "tool",      "function"};
constexpr std::string_view kProbe = "probe7421";      // what a printed message must show
constexpr std::string_view kUnnamed = "unnamed7421";  // a role that no template names
constexpr size_t kRoleBytesMax = 32;

std::string message_json(std::string_view role, std::string_view content) {
  return concat(R"({"role": ")", role, R"(", "content": ")", content,
                R"(", "name": "f", "tool_call_id": "call00001"})");
}

// Conversations in which a message of `role` may stand: first, second, behind an answer and behind
// a call. Some templates want turns to alternate, or a result to have its call.
std::vector<std::string> probes_of(std::string_view role) {
  const std::string probe = message_json(role, kProbe);
  const std::string user = message_json("user", "a");
  const std::string call =
      R"({"role": "assistant", "content": "", "tool_calls": [{"id": "call00001", )"
      R"("type": "function", "function": {"name": "f", "arguments": {}}}]})";
  return {concat("[", probe, ",", user, "]"), concat("[", probe, "]"),
          concat("[", user, ",", probe, "]"),
          concat("[", user, ",", message_json("assistant", "b"), ",", probe, "]"),
          concat("[", user, ",", call, ",", probe, "]")};
}

bool prints(std::string_view role, Roles::Render render) {
  constexpr const char* kTools =
      R"([{"type": "function", "function": {"name": "f", "description": "d", "parameters":
          {"type": "object", "properties": {}}}}])";
  for (const std::string& messages : probes_of(role)) {
    for (const char* tools : {"", kTools}) {
      const auto text = render({.messages_json = messages, .tools_json = tools});
      if (text.ok() && text->bytes().find(kProbe) != std::string::npos) return true;
    }
  }
  return false;
}

bool is_role_like(const std::string& text) {
  return !text.empty() && text.size() <= kRoleBytesMax &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '-';
         });
}

// The strings of a template that may be names of roles, each once.
std::vector<std::string> role_like_strings(std::string_view source) {
  std::vector<std::string> names;
  const auto tokens = tokenize(source);
  if (!tokens.ok()) return names;
  for (const Token& token : *tokens) {
    if (token.kind == TokenKind::kString && is_role_like(token.text)) names.push_back(token.text);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

bool holds(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

Roles::Roles(std::string_view source, Render render)
    : named_(role_like_strings(source)), prints_unnamed_(prints(kUnnamed, render)) {
  for (const std::string_view role : kUsualRoles) {
    if (prints(role, render)) printed_.emplace_back(role);
  }
  num_usual_printed_ = printed_.size();
  for (const std::string& role : named_) {
    if (!holds(printed_, role) && prints(role, render)) printed_.push_back(role);
  }
}

bool Roles::is_printed(std::string_view role) const {
  return holds(printed_, role) || (prints_unnamed_ && !holds(named_, role));
}

absl::StatusOr<std::string> Roles::fit_role(const std::string& role,
                                            const std::string& where) const {
  // On these three the template has its own word: some leave an empty system message out, others
  // refuse one with a reason.
  if (role == "system" || role == "user" || role == "assistant") return role;
  const bool is_foreign = role == "developer" && !(holds(named_, role) && is_printed(role));
  if (is_foreign && is_printed("system")) return std::string("system");
  // Where no probe is printed, probes tell nothing.
  if (is_printed(role) || printed_.empty()) return role;
  std::string allowed;
  for (size_t i = 0; i < num_usual_printed_; ++i) {
    allowed.append(i > 0 ? ", " : "").append(printed_[i]);
  }
  return field_error(where + ".role",
                     concat(where, ".role is '", role, "', must be one of ", allowed,
                            ": the model's chat template leaves out a message of any other"));
}

absl::StatusOr<Value> Roles::fit(const Value& messages) const {
  std::vector<Value> fitted = messages.sequence()->items();
  for (size_t i = 0; i < fitted.size(); ++i) {
    const std::string& given = *fitted[i].dict()->find("role")->string();
    const std::string where = concat("messages[", std::to_string(i), "]");
    ASSIGN_OR_RETURN(const std::string role, fit_role(given, where));
    if (role == given) continue;
    Dict message = *fitted[i].dict();
    message.set(Value("role"), Value(role));
    ASSIGN_OR_RETURN(fitted[i], Dict::share(std::move(message)));
  }
  return Sequence::make(SequenceKind::kList, std::move(fitted));
}

}  // namespace pbserve::models::jinja
