// A parsed template. Names of filters, tests and methods are resolved or known to exist here, so
// that an unsupported one is found when the template is loaded.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "models/chat_template/builtins.h"
#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

enum class UnaryOp { kNot, kMinus, kPlus };
enum class LogicOp { kAnd, kOr };
enum class BinaryOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct SequenceLiteral {
  SequenceKind kind;  // list or tuple
  std::vector<ExpressionPtr> items;
};
struct DictLiteral {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
};
struct Attribute {  // object.name
  ExpressionPtr object;
  std::string name;
};
struct Subscript {  // object[key]
  ExpressionPtr object, key;
};
struct Slice {  // object[start:stop:step], each may be absent
  ExpressionPtr object, start, stop, step;
};
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct FilterCall {  // input | filter(...)
  ExpressionPtr input;
  const Filter* filter;
  CallArguments arguments;
};
struct TestCall {  // input is test(...)
  ExpressionPtr input;
  const Test* test;
  CallArguments arguments;
};
struct Unary {
  UnaryOp op;
  ExpressionPtr operand;
};
struct Binary {
  BinaryOp op;
  ExpressionPtr left, right;
};
struct Logic {
  LogicOp op;
  ExpressionPtr left, right;
};
struct Concat {  // a ~ b ~ c
  std::vector<ExpressionPtr> parts;
};
struct Comparison {  // a < b < c
  ExpressionPtr first;
  std::vector<std::pair<CompareOp, ExpressionPtr>> rest;
};
struct Conditional {  // then if condition else otherwise; `otherwise` may be absent
  ExpressionPtr condition, then, otherwise;
};

struct Expression {
  using Node =
      std::variant<Literal, Name, SequenceLiteral, DictLiteral, Attribute, Subscript, Slice, Call,
                   FilterCall, TestCall, Unary, Binary, Logic, Concat, Comparison, Conditional>;
  int line;
  int height;  // of the tree below; bounded, so that recursion over it is
  Node node;
};

struct Statement;
using Block = std::vector<Statement>;

// What a value is assigned to: x, or namespace.member, or several of them at once.
struct Target {
  std::string name;
  std::string member;         // empty: the variable `name` itself
  std::vector<Target> parts;  // not empty: a tuple of targets, and no name
};

struct TextStatement {
  std::string text;
};
struct OutputStatement {
  ExpressionPtr value;
};
struct IfStatement {
  std::vector<std::pair<ExpressionPtr, Block>> branches;  // if, elif, ...
  Block otherwise;
};
struct ForStatement {
  Target target;
  ExpressionPtr items;
  ExpressionPtr condition;  // of the items to visit; may be absent
  Block body;
  Block otherwise;
};
struct SetStatement {
  Target target;
  ExpressionPtr value;
};
struct SetBlockStatement {  // {% set x %}...{% endset %}, with filters applied
  Target target;
  Block body;
  std::vector<FilterCall> filters;  // their inputs are absent
};
struct ScopeStatement {  // the body of {% generation %}
  Block body;
};
struct MacroStatement {
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // defaults may be absent
  Block body;
};
struct BreakStatement {};
struct ContinueStatement {};

struct Statement {
  using Node = std::variant<TextStatement, OutputStatement, IfStatement, ForStatement, SetStatement,
                            SetBlockStatement, ScopeStatement, MacroStatement, BreakStatement,
                            ContinueStatement>;
  int line;
  Node node;
};

}  // namespace pbserve::models::jinja
