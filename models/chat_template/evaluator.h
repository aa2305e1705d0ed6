// Runs a parsed template. One Evaluator renders once, on one thread.
//
// Scopes are Jinja's: the template, each iteration of a loop, the body of a block and each call of
// a macro have their own; `if` has none. A name is looked up from the inside out, `set` writes to
// the innermost, so that what a loop sets is gone in its next iteration.
//
// Names are looked up as the template runs, where Jinja decides as it compiles. The two differ for
// a variable of the request that an inner scope reads before its outer scope sets it for the first
// time, and reads nowhere itself: Jinja hides the request's value there, this shows it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/chat_template/ast.h"
#include "models/chat_template/loop.h"
#include "models/chat_template/runtime.h"

namespace pbserve::models::jinja {

class Evaluator {
 public:
  // `context` holds the variables the template is given; it and the template outlive *this.
  Evaluator(Runtime& runtime, const Dict& context) : runtime_(runtime), context_(context) {}

  absl::StatusOr<MarkedText> render(const Block& block);

 private:
  class Scope {
   public:
    explicit Scope(Scope* outer) : outer_(outer) {}
    void set(std::string_view name, Value value);    // the name belongs to the template
    const Value* find(std::string_view name) const;  // here or further out
    void clear() { variables_.clear(); }

   private:
    Scope* outer_;
    std::vector<std::pair<std::string_view, Value>> variables_;
  };

  using Result = absl::StatusOr<Value>;
  enum class Flow { kNext, kBreak, kContinue };
  using FlowResult = absl::StatusOr<Flow>;

  // Expressions. evaluate() adds the line to errors; the overloads are the kinds of nodes.
  Result evaluate(const Expression& expression, Scope& scope);
  Result evaluate_node(const Literal& literal, Scope& scope);
  Result evaluate_node(const Name& name, Scope& scope);
  Result evaluate_node(const SequenceLiteral& sequence, Scope& scope);
  Result evaluate_node(const DictLiteral& dict, Scope& scope);
  Result evaluate_node(const Attribute& attribute, Scope& scope);
  Result evaluate_node(const Subscript& subscript, Scope& scope);
  Result evaluate_node(const Slice& slice, Scope& scope);
  Result evaluate_node(const Call& call, Scope& scope);
  Result evaluate_node(const FilterCall& call, Scope& scope);
  Result evaluate_node(const TestCall& call, Scope& scope);
  Result evaluate_node(const Unary& unary, Scope& scope);
  Result evaluate_node(const Binary& binary, Scope& scope);
  Result evaluate_node(const Logic& logic, Scope& scope);
  Result evaluate_node(const Concat& concat, Scope& scope);
  Result evaluate_node(const Comparison& comparison, Scope& scope);
  Result evaluate_node(const Conditional& conditional, Scope& scope);
  Result member_of(const Value& object, const std::string& name);
  Result apply_filter(const FilterCall& call, const Value& input, Scope& scope);
  Result call_macro(const MacroStatement& macro, const Arguments& arguments);
  absl::StatusOr<Arguments> evaluate_arguments(const CallArguments& arguments, Scope& scope);

  // Statements.
  FlowResult run(const Block& block, Scope& scope);
  FlowResult run_node(const TextStatement& text, Scope& scope);
  FlowResult run_node(const OutputStatement& output, Scope& scope);
  FlowResult run_node(const IfStatement& statement, Scope& scope);
  FlowResult run_node(const ForStatement& statement, Scope& scope);
  FlowResult run_node(const SetStatement& statement, Scope& scope);
  FlowResult run_node(const SetBlockStatement& statement, Scope& scope);
  FlowResult run_node(const ScopeStatement& statement, Scope& scope);
  FlowResult run_node(const MacroStatement& macro, Scope& scope);
  FlowResult run_node(const BreakStatement&, Scope&) { return Flow::kBreak; }
  FlowResult run_node(const ContinueStatement&, Scope&) { return Flow::kContinue; }
  // Runs the loop's iterations; true if the body reached its end at least once.
  absl::StatusOr<bool> run_iterations(const ForStatement& statement,
                                      const std::shared_ptr<Loop>& loop, Scope& scope);
  absl::Status assign(const Target& target, Value value, Scope& scope);
  absl::Status check_output() const;

  absl::Status check_nesting() const;
  // Puts the line of the innermost construct before the message of an error.
  absl::Status locate(absl::Status status, int line);

  Runtime& runtime_;
  const Dict& context_;
  Scope root_{nullptr};
  MarkedText* output_ = nullptr;  // of the template, or of the block or macro being captured
  int nesting_ = 0;
  bool located_ = false;
};

}  // namespace pbserve::models::jinja
