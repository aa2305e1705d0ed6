#include "models/chat_template/chat_messages.h"

#include <algorithm>

#include "models/chat_template/json_value.h"
#include "models/field_error.h"

namespace pbserve::models::jinja {
namespace {

// Templates write roles into their markup ("<|" + role + "|>"), so these names count as their own
// words. Any other is what a client wrote: "im_end" must not become a token there.
constexpr std::string_view kRoles[] = {"system", "developer", "user",   "assistant",
                                       "tool",   "function",  "ipython"};

// "messages[0].content is a list, ..."
template <class... Parts>
absl::Status wrong(const std::string& field, const Parts&... parts) {
  return field_error(field, concat(field, parts...));
}

const Sequence* list_in(const Value* value) {  // a JSON value: its sequences are lists
  return value ? value->sequence() : nullptr;
}

absl::StatusOr<Value> flatten_content(const Value* content, const std::string& where) {
  if (!content || content->is_none()) return Value(std::string());
  if (content->string()) return *content;
  const Sequence* parts = list_in(content);
  if (!parts) {
    return wrong(where + ".content", " is a ", type_name(*content), ", not a string or a list");
  }
  MarkedText text;
  for (size_t i = 0; i < parts->items().size(); ++i) {
    const std::string part_name = where + ".content[" + std::to_string(i) + "]";
    const Dict* part = parts->items()[i].dict();
    const Value* type = part ? part->find("type") : nullptr;
    if (!type || !type->string()) return wrong(part_name, " is no object with a type");
    if (*type->string() != "text") {
      return wrong(part_name, " has the type '", *type->string(), "'; only 'text' is supported");
    }
    const Value* part_text = part->find("text");
    if (!part_text || !part_text->string()) return wrong(part_name + ".text", " is no string");
    if (i > 0) text.append("\n");
    text.append(*part_text->text());
  }
  return Value(std::move(text));
}

absl::StatusOr<Value> parse_arguments(const Value* arguments, const std::string& where) {
  const bool empty =
      !arguments || arguments->is_none() || (arguments->string() && arguments->string()->empty());
  if (empty) return Dict::share(Dict());
  Value parsed = *arguments;
  if (arguments->string()) {
    ASSIGN_OR_RETURN(parsed, parse_json(*arguments->string(), where));
  }
  if (parsed.dict()) return parsed;
  return wrong(where, " is a ", type_name(parsed), ", not an object");
}

// The same calls, each function's arguments as an object.
absl::StatusOr<Value> parse_tool_calls(const Sequence& calls, const std::string& where) {
  std::vector<Value> parsed;
  for (size_t i = 0; i < calls.items().size(); ++i) {
    const std::string call_name = where + ".tool_calls[" + std::to_string(i) + "]";
    const Dict* call = calls.items()[i].dict();
    if (!call) return wrong(call_name, " is no object");
    const Value* function_value = call->find("function");
    if (!function_value || !function_value->dict()) {
      return wrong(call_name + ".function", " is no object");
    }
    Dict function = *function_value->dict();
    ASSIGN_OR_RETURN(Value arguments, parse_arguments(function.find("arguments"),
                                                      call_name + ".function.arguments"));
    function.set(Value("arguments"), std::move(arguments));
    Dict copy = *call;
    ASSIGN_OR_RETURN(Value shared, Dict::share(std::move(function)));
    copy.set(Value("function"), std::move(shared));
    ASSIGN_OR_RETURN(Value result, Dict::share(std::move(copy)));
    parsed.push_back(std::move(result));
  }
  return Sequence::make(SequenceKind::kList, std::move(parsed));
}

absl::StatusOr<Value> parse_message(const Value& value, const std::string& where) {
  const Dict* given = value.dict();
  if (!given) return wrong(where, " is a ", type_name(value), ", not an object");
  const Value* role = given->find("role");
  if (!role || !role->string()) return wrong(where + ".role", " is missing or no string");
  Dict message = *given;
  if (std::find(std::begin(kRoles), std::end(kRoles), *role->string()) != std::end(kRoles)) {
    message.set(Value("role"), Value(*role->string()));
  }
  ASSIGN_OR_RETURN(Value content, flatten_content(given->find("content"), where));
  message.set(Value("content"), std::move(content));
  if (const Sequence* calls = list_in(given->find("tool_calls"))) {
    ASSIGN_OR_RETURN(Value parsed, parse_tool_calls(*calls, where));
    message.set(Value("tool_calls"), std::move(parsed));
  }
  return Dict::share(std::move(message));
}

}  // namespace

absl::StatusOr<Value> parse_messages(const std::string& json) {
  ASSIGN_OR_RETURN(const Value value, parse_json(json, "messages"));
  const Sequence* list = value.sequence();
  if (!list) return wrong("messages", " is a ", type_name(value), ", not a list");
  if (list->items().empty()) return wrong("messages", " is empty");
  std::vector<Value> messages;
  for (size_t i = 0; i < list->items().size(); ++i) {
    ASSIGN_OR_RETURN(Value message,
                     parse_message(list->items()[i], "messages[" + std::to_string(i) + "]"));
    messages.push_back(std::move(message));
  }
  return Sequence::make(SequenceKind::kList, std::move(messages));
}

absl::StatusOr<Value> parse_tools(const std::string& json) {
  if (json.empty()) return Value(None{});
  ASSIGN_OR_RETURN(Value value, parse_json(json, "tools"));
  if (value.is_none()) return value;
  if (!value.sequence()) return wrong("tools", " is a ", type_name(value), ", not a list");
  for (const Value& tool : value.sequence()->items()) {
    if (!tool.dict()) {
      return field_error("tools", concat("a tool is a ", type_name(tool), ", not an object"));
    }
  }
  return value;
}

}  // namespace pbserve::models::jinja
