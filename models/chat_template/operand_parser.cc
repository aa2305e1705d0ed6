// The tight half of ExpressionParser: literals and names, and what may follow them.

#include <charconv>
#include <limits>

#include "models/chat_template/expression_parser.h"

namespace pbserve::models::jinja {
namespace {

using Result = absl::StatusOr<ExpressionPtr>;

const std::string* literal_string(const ExpressionPtr& expression) {
  const auto* literal = std::get_if<Literal>(&expression->node);
  return literal ? literal->value.string() : nullptr;
}

absl::StatusOr<Value> number_of(const Token& token) {
  const char* begin = token.text.data();
  const char* end = begin + token.text.size();
  int64_t integer = 0;
  double real = 0;
  const std::errc error = token.kind == TokenKind::kInteger
                              ? std::from_chars(begin, end, integer).ec
                              : std::from_chars(begin, end, real).ec;
  if (error != std::errc()) return syntax_error(token.line, "number out of range: " + token.text);
  return token.kind == TokenKind::kInteger ? Value(integer) : Value(real);
}

// map("upper"), select("defined") and their like take the name of a filter or test as a string.
absl::Status check_named_by_string(std::string_view filter, const CallArguments& arguments,
                                   int line) {
  const bool attribute_first = filter == "selectattr" || filter == "rejectattr";
  const bool names_test = attribute_first || filter == "select" || filter == "reject";
  const size_t at = attribute_first ? 1 : 0;
  if (!names_test && filter != "map") return absl::OkStatus();
  if (arguments.positional.size() <= at) return absl::OkStatus();
  const std::string* name = literal_string(arguments.positional[at]);
  if (!name || (names_test ? find_test(*name) != nullptr : find_filter(*name) != nullptr)) {
    return absl::OkStatus();
  }
  return unsupported(line, (names_test ? "test '" : "filter '") + *name + "'");
}

}  // namespace

Result ExpressionParser::parse_primary() {
  const Token& token = tokens_.peek();
  switch (token.kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString: {
      std::string text;
      while (tokens_.at(TokenKind::kString)) text += tokens_.next().text;
      return make(token.line, Literal{Value(std::move(text))}, {});
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      ASSIGN_OR_RETURN(Value number, number_of(tokens_.next()));
      return make(token.line, Literal{std::move(number)}, {});
    }
    default:
      if (tokens_.at_operator("(")) return parse_brackets();
      if (tokens_.at_operator("[")) return parse_list();
      if (tokens_.at_operator("{")) return parse_dict();
      return tokens_.unexpected("an expression");
  }
}

Result ExpressionParser::parse_name() {
  const Token& token = tokens_.next();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make(token.line, Literal{Value(true)}, {});
  if (name == "false" || name == "False") return make(token.line, Literal{Value(false)}, {});
  if (name == "none" || name == "None") return make(token.line, Literal{Value(None{})}, {});
  if (inside_macro_ && (name == "varargs" || name == "kwargs" || name == "caller")) {
    return unsupported(token.line, "'" + name + "' in a macro");
  }
  return make(token.line, Name{name}, {});
}

Result ExpressionParser::parse_brackets() {
  const int line = tokens_.next().line;
  if (tokens_.skip_operator(")")) {
    return make(line, SequenceLiteral{SequenceKind::kTuple, {}}, {});
  }
  ASSIGN_OR_RETURN(ExpressionPtr value, parse_tuple(Conditionals::kAllowed));
  RETURN_IF_ERROR(tokens_.expect_operator(")"));
  return value;
}

Result ExpressionParser::parse_list() {
  const int line = tokens_.next().line;
  std::vector<ExpressionPtr> items;
  int height = 0;
  while (!tokens_.at_operator("]")) {
    ASSIGN_OR_RETURN(ExpressionPtr item, parse_expression());
    height = std::max(height, item->height);
    items.push_back(std::move(item));
    if (!tokens_.skip_operator(",")) break;
  }
  RETURN_IF_ERROR(tokens_.expect_operator("]"));
  return make_at_height(line, SequenceLiteral{SequenceKind::kList, std::move(items)}, height);
}

Result ExpressionParser::parse_dict() {
  const int line = tokens_.next().line;
  DictLiteral dict;
  int height = 0;
  while (!tokens_.at_operator("}")) {
    ASSIGN_OR_RETURN(ExpressionPtr key, parse_expression());
    if (std::holds_alternative<Literal>(key->node) && !literal_string(key)) {
      return unsupported(key->line, "a dict key that is not a string");
    }
    RETURN_IF_ERROR(tokens_.expect_operator(":"));
    ASSIGN_OR_RETURN(ExpressionPtr value, parse_expression());
    height = std::max({height, key->height, value->height});
    dict.items.emplace_back(std::move(key), std::move(value));
    if (!tokens_.skip_operator(",")) break;
  }
  RETURN_IF_ERROR(tokens_.expect_operator("}"));
  return make_at_height(line, std::move(dict), height);
}

Result ExpressionParser::parse_postfix(ExpressionPtr operand) {
  for (;;) {
    if (tokens_.at_operator("[")) {
      ASSIGN_OR_RETURN(operand, parse_subscript(std::move(operand)));
    } else if (tokens_.at_operator("(")) {
      ASSIGN_OR_RETURN(operand, parse_call(std::move(operand)));
    } else if (tokens_.skip_operator(".")) {
      const Token& token = tokens_.next();
      const auto below = {static_cast<const Expression*>(operand.get())};
      if (token.kind == TokenKind::kName) {
        ASSIGN_OR_RETURN(operand,
                         make(token.line, Attribute{std::move(operand), token.text}, below));
      } else if (token.kind == TokenKind::kInteger) {  // list.0
        ASSIGN_OR_RETURN(Value number, number_of(token));
        ASSIGN_OR_RETURN(ExpressionPtr key, make(token.line, Literal{std::move(number)}, {}));
        ASSIGN_OR_RETURN(operand,
                         make(token.line, Subscript{std::move(operand), std::move(key)}, below));
      } else {
        return syntax_error(token.line, "expected a name or a number after the dot");
      }
    } else {
      return operand;
    }
  }
}

Result ExpressionParser::parse_subscript(ExpressionPtr object) {
  const int line = tokens_.next().line;
  ExpressionPtr parts[3];  // start, stop, step; or the key alone
  size_t num_colons = 0;
  while (!tokens_.at_operator("]")) {
    if (tokens_.skip_operator(":")) {
      if (++num_colons > 2) return tokens_.unexpected("]");
    } else if (parts[num_colons]) {
      return tokens_.at_operator(",") ? unsupported(line, "a subscript with a comma")
                                      : tokens_.unexpected("]");
    } else {
      ASSIGN_OR_RETURN(parts[num_colons], parse_expression());
    }
  }
  tokens_.next();
  const auto below = {static_cast<const Expression*>(object.get()),
                      static_cast<const Expression*>(parts[0].get()),
                      static_cast<const Expression*>(parts[1].get()),
                      static_cast<const Expression*>(parts[2].get())};
  if (num_colons > 0) {
    return make(
        line,
        Slice{std::move(object), std::move(parts[0]), std::move(parts[1]), std::move(parts[2])},
        below);
  }
  if (!parts[0]) return syntax_error(line, "an empty subscript");
  return make(line, Subscript{std::move(object), std::move(parts[0])}, below);
}

Result ExpressionParser::parse_call(ExpressionPtr callee) {
  const int line = tokens_.line();
  if (const auto* name = std::get_if<Name>(&callee->node)) {
    called_.emplace_back(name->name, callee->line);
  } else if (const auto* attribute = std::get_if<Attribute>(&callee->node)) {
    if (is_mutator_name(attribute->name)) {
      return unsupported(line, "method '" + attribute->name + "', which changes its object");
    }
    if (!is_method_name(attribute->name)) {
      return unsupported(line, "method '" + attribute->name + "'");
    }
  }
  ASSIGN_OR_RETURN(CallArguments arguments, parse_arguments());
  const int height = std::max(callee->height, height_of(arguments));
  return make_at_height(line, Call{std::move(callee), std::move(arguments)}, height);
}

absl::StatusOr<CallArguments> ExpressionParser::parse_arguments() {
  const int line = tokens_.line();
  RETURN_IF_ERROR(tokens_.expect_operator("("));
  CallArguments arguments;
  while (!tokens_.at_operator(")")) {
    if (tokens_.at_operator("*") || tokens_.at_operator("**")) {
      return unsupported(line, "arguments unpacked with * or **");
    }
    std::string name;
    if (tokens_.at(TokenKind::kName) && tokens_.at_operator("=", 1)) {
      name = tokens_.next().text;
      tokens_.next();
    } else if (!arguments.named.empty()) {
      return syntax_error(line, "an argument without name follows one with name");
    }
    ASSIGN_OR_RETURN(ExpressionPtr value, parse_expression());
    if (name.empty()) {
      arguments.positional.push_back(std::move(value));
    } else {
      arguments.named.emplace_back(std::move(name), std::move(value));
    }
    if (!tokens_.skip_operator(",")) break;
  }
  RETURN_IF_ERROR(tokens_.expect_operator(")"));
  return arguments;
}

Result ExpressionParser::parse_filters_and_tests(ExpressionPtr operand) {
  for (;;) {
    const int line = tokens_.line();
    if (tokens_.at_operator("|")) {
      ASSIGN_OR_RETURN(FilterCall call, parse_filter());
      const int height = std::max(operand->height, height_of(call.arguments));
      call.input = std::move(operand);
      ASSIGN_OR_RETURN(operand, make_at_height(line, std::move(call), height));
    } else if (tokens_.at_name("is")) {
      ASSIGN_OR_RETURN(operand, parse_test(std::move(operand)));
    } else if (tokens_.at_operator("(")) {
      ASSIGN_OR_RETURN(operand, parse_call(std::move(operand)));
    } else {
      return operand;
    }
  }
}

absl::StatusOr<FilterCall> ExpressionParser::parse_filter() {
  RETURN_IF_ERROR(tokens_.expect_operator("|"));
  const int line = tokens_.line();
  ASSIGN_OR_RETURN(const std::string name, tokens_.expect_any_name());
  const Filter* filter = find_filter(name);
  if (!filter) return unsupported(line, "filter '" + name + "'");
  CallArguments arguments;
  if (tokens_.at_operator("(")) {
    ASSIGN_OR_RETURN(arguments, parse_arguments());
  }
  RETURN_IF_ERROR(check_named_by_string(name, arguments, line));
  return FilterCall{.input = nullptr, .filter = filter, .arguments = std::move(arguments)};
}

Result ExpressionParser::parse_test(ExpressionPtr input) {
  const int line = tokens_.next().line;
  const bool negated = tokens_.skip_name("not");
  ASSIGN_OR_RETURN(const std::string name, tokens_.expect_any_name());
  const Test* test = find_test(name);
  if (!test) return unsupported(line, "test '" + name + "'");
  CallArguments arguments;
  const TokenKind kind = tokens_.peek().kind;
  const bool operand_follows = kind == TokenKind::kString || kind == TokenKind::kInteger ||
                               kind == TokenKind::kFloat || tokens_.at_operator("[") ||
                               tokens_.at_operator("{") ||
                               (kind == TokenKind::kName && !tokens_.at_name("else") &&
                                !tokens_.at_name("or") && !tokens_.at_name("and"));
  if (tokens_.at_operator("(")) {
    ASSIGN_OR_RETURN(arguments, parse_arguments());
  } else if (operand_follows) {  // "is divisibleby 3"
    if (tokens_.at_name("is")) return syntax_error(line, "tests cannot be chained with is");
    ASSIGN_OR_RETURN(ExpressionPtr operand, parse_primary());
    ASSIGN_OR_RETURN(operand, parse_postfix(std::move(operand)));
    arguments.positional.push_back(std::move(operand));
  }
  const int height = std::max(input->height, height_of(arguments));
  ASSIGN_OR_RETURN(
      ExpressionPtr result,
      make_at_height(line, TestCall{std::move(input), test, std::move(arguments)}, height));
  if (!negated) return result;
  const auto below = {static_cast<const Expression*>(result.get())};
  return make(line, Unary{UnaryOp::kNot, std::move(result)}, below);
}

}  // namespace pbserve::models::jinja
