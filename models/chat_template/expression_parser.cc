#include "models/chat_template/expression_parser.h"

#include <algorithm>

#include "models/chat_template/limits.h"

namespace pbserve::models::jinja {

using Result = absl::StatusOr<ExpressionPtr>;

absl::Status ExpressionParser::check_nesting() const {
  if (depth_ <= kSyntaxNestingMax) return absl::OkStatus();
  return syntax_error(tokens_.line(),
                      "nested deeper than the limit of " + std::to_string(kSyntaxNestingMax));
}

absl::Status ExpressionParser::check_called_names() const {
  for (const auto& [name, line] : called_) {
    if (!declared_.contains(name) && !find_function(name)) {
      return unsupported(line, "function '" + name + "'");
    }
  }
  return absl::OkStatus();
}

Result ExpressionParser::make_at_height(int line, Expression::Node node, int height_below) {
  if (height_below >= kExpressionHeightMax) {
    return syntax_error(line, "an expression is deeper than the limit of " +
                                  std::to_string(kExpressionHeightMax) + " operators");
  }
  return std::make_unique<const Expression>(
      Expression{.line = line, .height = height_below + 1, .node = std::move(node)});
}

Result ExpressionParser::make(int line, Expression::Node node,
                              std::initializer_list<const Expression*> below) {
  int height = 0;
  for (const Expression* part : below) height = std::max(height, part ? part->height : 0);
  return make_at_height(line, std::move(node), height);
}

Result ExpressionParser::make_binary(int line, BinaryOp op, ExpressionPtr left,
                                     ExpressionPtr right) {
  const auto* literal = std::get_if<Literal>(&left->node);
  if (op == BinaryOp::kModulo && literal && literal->value.string()) {
    return unsupported(line, "formatting of a string with %");
  }
  const auto below = {left.get(), right.get()};
  return make(line, Binary{op, std::move(left), std::move(right)}, below);
}

int ExpressionParser::height_of(const CallArguments& arguments) {
  int height = 0;
  for (const auto& value : arguments.positional) height = std::max(height, value->height);
  for (const auto& [name, value] : arguments.named) height = std::max(height, value->height);
  return height;
}

Result ExpressionParser::parse_expression() {
  const Nesting nesting = nest();
  RETURN_IF_ERROR(check_nesting());
  ASSIGN_OR_RETURN(ExpressionPtr value, parse_or());
  while (tokens_.at_name("if")) {
    const int line = tokens_.next().line;
    ASSIGN_OR_RETURN(ExpressionPtr condition, parse_or());
    ExpressionPtr otherwise;
    if (tokens_.skip_name("else")) {
      ASSIGN_OR_RETURN(otherwise, parse_expression());
    }
    const auto below = {value.get(), condition.get(),
                        static_cast<const Expression*>(otherwise.get())};
    ASSIGN_OR_RETURN(
        value, make(line, Conditional{std::move(condition), std::move(value), std::move(otherwise)},
                    below));
  }
  return value;
}

Result ExpressionParser::parse_tuple(Conditionals conditionals) {
  const int line = tokens_.line();
  std::vector<ExpressionPtr> items;
  int height = 0;
  bool is_tuple = false;
  do {
    const bool ends = tokens_.at(TokenKind::kTagEnd) || tokens_.at(TokenKind::kOutputEnd) ||
                      tokens_.at_operator(")");
    if (ends && is_tuple) break;
    ASSIGN_OR_RETURN(ExpressionPtr item,
                     conditionals == Conditionals::kAllowed ? parse_expression() : parse_or());
    height = std::max(height, item->height);
    items.push_back(std::move(item));
  } while (tokens_.skip_operator(",") && (is_tuple = true));
  if (!is_tuple) return std::move(items[0]);
  return make_at_height(line, SequenceLiteral{SequenceKind::kTuple, std::move(items)}, height);
}

Result ExpressionParser::parse_or() {
  ASSIGN_OR_RETURN(ExpressionPtr left, parse_and());
  while (tokens_.at_name("or")) {
    const int line = tokens_.next().line;
    ASSIGN_OR_RETURN(ExpressionPtr right, parse_and());
    const auto below = {left.get(), right.get()};
    ASSIGN_OR_RETURN(left,
                     make(line, Logic{LogicOp::kOr, std::move(left), std::move(right)}, below));
  }
  return left;
}

Result ExpressionParser::parse_and() {
  ASSIGN_OR_RETURN(ExpressionPtr left, parse_not());
  while (tokens_.at_name("and")) {
    const int line = tokens_.next().line;
    ASSIGN_OR_RETURN(ExpressionPtr right, parse_not());
    const auto below = {left.get(), right.get()};
    ASSIGN_OR_RETURN(left,
                     make(line, Logic{LogicOp::kAnd, std::move(left), std::move(right)}, below));
  }
  return left;
}

Result ExpressionParser::parse_not() {
  if (!tokens_.at_name("not")) return parse_comparison();
  const Nesting nesting = nest();
  RETURN_IF_ERROR(check_nesting());
  const int line = tokens_.next().line;
  ASSIGN_OR_RETURN(ExpressionPtr operand, parse_not());
  const auto below = {operand.get()};
  return make(line, Unary{UnaryOp::kNot, std::move(operand)}, below);
}

Result ExpressionParser::parse_comparison() {
  static constexpr std::pair<std::string_view, CompareOp> kOperators[] = {
      {"==", CompareOp::kEqual},  {"!=", CompareOp::kNotEqual},
      {"<", CompareOp::kLess},    {"<=", CompareOp::kLessEqual},
      {">", CompareOp::kGreater}, {">=", CompareOp::kGreaterEqual}};
  const int line = tokens_.line();
  ASSIGN_OR_RETURN(ExpressionPtr first, parse_sum());
  int height = first->height;
  std::vector<std::pair<CompareOp, ExpressionPtr>> rest;
  for (;;) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](const auto& op) { return tokens_.at_operator(op.first); });
    CompareOp op;
    if (found != std::end(kOperators)) {
      op = found->second;
    } else if (tokens_.at_name("in")) {
      op = CompareOp::kIn;
    } else if (tokens_.at_name("not") && tokens_.at_name("in", 1)) {
      op = CompareOp::kNotIn;
      tokens_.next();
    } else {
      break;
    }
    tokens_.next();
    ASSIGN_OR_RETURN(ExpressionPtr operand, parse_sum());
    height = std::max(height, operand->height);
    rest.emplace_back(op, std::move(operand));
  }
  if (rest.empty()) return first;
  return make_at_height(line, Comparison{std::move(first), std::move(rest)}, height);
}

Result ExpressionParser::parse_sum() {
  ASSIGN_OR_RETURN(ExpressionPtr left, parse_concat());
  while (tokens_.at_operator("+") || tokens_.at_operator("-")) {
    const Token& token = tokens_.next();
    ASSIGN_OR_RETURN(ExpressionPtr right, parse_concat());
    ASSIGN_OR_RETURN(
        left, make_binary(token.line, token.text == "+" ? BinaryOp::kAdd : BinaryOp::kSubtract,
                          std::move(left), std::move(right)));
  }
  return left;
}

Result ExpressionParser::parse_concat() {
  const int line = tokens_.line();
  std::vector<ExpressionPtr> parts;
  int height = 0;
  do {
    ASSIGN_OR_RETURN(ExpressionPtr part, parse_product());
    height = std::max(height, part->height);
    parts.push_back(std::move(part));
  } while (tokens_.skip_operator("~"));
  if (parts.size() == 1) return std::move(parts[0]);
  return make_at_height(line, Concat{std::move(parts)}, height);
}

Result ExpressionParser::parse_product() {
  static constexpr std::pair<std::string_view, BinaryOp> kOperators[] = {
      {"*", BinaryOp::kMultiply},
      {"/", BinaryOp::kDivide},
      {"//", BinaryOp::kFloorDivide},
      {"%", BinaryOp::kModulo}};
  ASSIGN_OR_RETURN(ExpressionPtr left, parse_power());
  for (;;) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](const auto& op) { return tokens_.at_operator(op.first); });
    if (found == std::end(kOperators)) return left;
    const int line = tokens_.next().line;
    ASSIGN_OR_RETURN(ExpressionPtr right, parse_power());
    ASSIGN_OR_RETURN(left, make_binary(line, found->second, std::move(left), std::move(right)));
  }
}

Result ExpressionParser::parse_power() {
  ASSIGN_OR_RETURN(ExpressionPtr left, parse_unary(Filters::kAllowed));
  while (tokens_.at_operator("**")) {
    const int line = tokens_.next().line;
    ASSIGN_OR_RETURN(ExpressionPtr right, parse_unary(Filters::kAllowed));
    ASSIGN_OR_RETURN(left, make_binary(line, BinaryOp::kPower, std::move(left), std::move(right)));
  }
  return left;
}

// A sign binds tighter than a filter: -1|abs is (-1)|abs.
Result ExpressionParser::parse_unary(Filters filters) {
  const Nesting nesting = nest();
  RETURN_IF_ERROR(check_nesting());
  ExpressionPtr operand;
  if (tokens_.at_operator("-") || tokens_.at_operator("+")) {
    const Token& sign = tokens_.next();
    ASSIGN_OR_RETURN(operand, parse_unary(Filters::kRefused));
    const auto below = {static_cast<const Expression*>(operand.get())};
    ASSIGN_OR_RETURN(operand, make(sign.line,
                                   Unary{sign.text == "-" ? UnaryOp::kMinus : UnaryOp::kPlus,
                                         std::move(operand)},
                                   below));
  } else {
    ASSIGN_OR_RETURN(operand, parse_primary());
  }
  ASSIGN_OR_RETURN(operand, parse_postfix(std::move(operand)));
  return filters == Filters::kAllowed ? parse_filters_and_tests(std::move(operand))
                                      : Result(std::move(operand));
}

}  // namespace pbserve::models::jinja
