// The expressions of a template, by recursive descent with Jinja's precedence. One function a
// level, loosest first; each leaves the stream behind what it has read.
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/chat_template/ast.h"
#include "models/chat_template/token_stream.h"

namespace pbserve::models::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  enum class Conditionals { kAllowed, kRefused };  // "a if b else c"

  absl::StatusOr<ExpressionPtr> parse_expression();
  // One expression, or a tuple of them without brackets.
  absl::StatusOr<ExpressionPtr> parse_tuple(Conditionals conditionals);
  // "| name(...)" behind what has been read; the filter's input is absent.
  absl::StatusOr<FilterCall> parse_filter();

  void declare(const std::string& name) { declared_.insert(name); }
  void set_inside_macro(bool inside) { inside_macro_ = inside; }
  // Refuses the first call of a name that is neither declared in the template nor a function.
  absl::Status check_called_names() const;

  // Counts one level of nesting for the life of the result.
  class Nesting {
   public:
    explicit Nesting(int& depth) : depth_(depth) { ++depth_; }
    ~Nesting() { --depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    int& depth_;
  };
  Nesting nest() { return Nesting(depth_); }
  absl::Status check_nesting() const;

 private:
  using Result = absl::StatusOr<ExpressionPtr>;

  Result parse_or();
  Result parse_and();
  Result parse_not();
  Result parse_comparison();
  Result parse_sum();
  Result parse_concat();
  Result parse_product();
  Result parse_power();
  enum class Filters { kAllowed, kRefused };
  Result parse_unary(Filters filters);
  Result parse_primary();
  Result parse_name();
  Result parse_brackets();  // "(a)", "(a, b)", "()"
  Result parse_list();
  Result parse_dict();
  Result parse_postfix(ExpressionPtr operand);
  Result parse_filters_and_tests(ExpressionPtr operand);
  Result parse_subscript(ExpressionPtr object);
  Result parse_call(ExpressionPtr callee);
  Result parse_test(ExpressionPtr input);
  absl::StatusOr<CallArguments> parse_arguments();

  Result make(int line, Expression::Node node, std::initializer_list<const Expression*> below);
  Result make_binary(int line, BinaryOp op, ExpressionPtr left, ExpressionPtr right);
  static int height_of(const CallArguments& arguments);
  Result make_at_height(int line, Expression::Node node, int height_below);

  TokenStream& tokens_;
  int depth_ = 0;
  bool inside_macro_ = false;
  std::set<std::string> declared_;
  std::vector<std::pair<std::string, int>> called_;  // name and line
};

}  // namespace pbserve::models::jinja
