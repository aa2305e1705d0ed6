// The expressions of Evaluator.

#include <algorithm>

#include "models/chat_template/evaluator.h"
#include "models/chat_template/value_ops.h"
#include "models/chat_template/value_text.h"

namespace pbserve::models::jinja {
namespace {

absl::Status in_call(std::string_view kind, std::string_view name, const absl::Status& status) {
  return render_error(kind, " '", name, "': ", std::string(status.message()));
}

}  // namespace

void Evaluator::Scope::set(std::string_view name, Value value) {
  for (auto& [known, slot] : variables_) {
    if (known == name) {
      slot = std::move(value);
      return;
    }
  }
  variables_.emplace_back(name, std::move(value));
}

const Value* Evaluator::Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope; scope = scope->outer_) {
    for (const auto& [known, value] : scope->variables_) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

absl::Status Evaluator::check_nesting() const {
  if (nesting_ <= runtime_.limits().nesting) return absl::OkStatus();
  return render_error("expressions, blocks and macro calls are nested deeper than the limit of ",
                      std::to_string(runtime_.limits().nesting));
}

absl::Status Evaluator::locate(absl::Status status, int line) {
  if (status.ok() || located_ || runtime_.raised()) return status;
  located_ = true;
  return absl::Status(status.code(), "chat template, line " + std::to_string(line) + ": " +
                                         std::string(status.message()));
}

Evaluator::Result Evaluator::evaluate(const Expression& expression, Scope& scope) {
  ++nesting_;
  absl::Status ready = check_nesting();
  if (ready.ok()) ready = runtime_.charge(kStepUnits);
  Result result = ready.ok()
                      ? std::visit([&](const auto& node) { return evaluate_node(node, scope); },
                                   expression.node)
                      : Result(ready);
  --nesting_;
  return result.ok() ? std::move(result) : locate(result.status(), expression.line);
}

Evaluator::Result Evaluator::evaluate_node(const Literal& literal, Scope&) { return literal.value; }

Evaluator::Result Evaluator::evaluate_node(const Name& name, Scope& scope) {
  if (const Value* found = scope.find(name.name)) return *found;
  if (const Value* found = context_.find(name.name)) return *found;
  if (const Function* function = find_function(name.name)) return Value(function);
  return Value::undefined("'" + name.name + "' is undefined");
}

Evaluator::Result Evaluator::evaluate_node(const SequenceLiteral& sequence, Scope& scope) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : sequence.items) {
    ASSIGN_OR_RETURN(Value value, evaluate(*item, scope));
    items.push_back(std::move(value));
  }
  return Sequence::make(sequence.kind, std::move(items));
}

Evaluator::Result Evaluator::evaluate_node(const DictLiteral& literal, Scope& scope) {
  Dict dict;
  for (const auto& [key_expression, value_expression] : literal.items) {
    ASSIGN_OR_RETURN(Value key, evaluate(*key_expression, scope));
    if (!key.string()) return render_error("a dict key is a ", type_name(key), ", not a str");
    ASSIGN_OR_RETURN(Value value, evaluate(*value_expression, scope));
    dict.set(std::move(key), std::move(value));
  }
  return Dict::share(std::move(dict));
}

Evaluator::Result Evaluator::member_of(const Value& object, const std::string& name) {
  const auto* loop = object.get_if<std::shared_ptr<Loop>>();
  if (loop && !find_method(object, name)) return (*loop)->attribute(name);
  return get_attribute(object, name);
}

Evaluator::Result Evaluator::evaluate_node(const Attribute& attribute, Scope& scope) {
  ASSIGN_OR_RETURN(const Value object, evaluate(*attribute.object, scope));
  return member_of(object, attribute.name);
}

Evaluator::Result Evaluator::evaluate_node(const Subscript& subscript, Scope& scope) {
  ASSIGN_OR_RETURN(const Value object, evaluate(*subscript.object, scope));
  ASSIGN_OR_RETURN(const Value key, evaluate(*subscript.key, scope));
  if (object.get_if<std::shared_ptr<Loop>>() && key.string()) {
    return member_of(object, *key.string());
  }
  return get_item(runtime_, object, key);
}

Evaluator::Result Evaluator::evaluate_node(const Slice& slice, Scope& scope) {
  ASSIGN_OR_RETURN(const Value object, evaluate(*slice.object, scope));
  Value parts[3];
  const ExpressionPtr* expressions[] = {&slice.start, &slice.stop, &slice.step};
  for (size_t i = 0; i < 3; ++i) {
    parts[i] = None{};
    if (!*expressions[i]) continue;
    ASSIGN_OR_RETURN(parts[i], evaluate(**expressions[i], scope));
  }
  return get_slice(runtime_, object, parts[0], parts[1], parts[2]);
}

absl::StatusOr<Arguments> Evaluator::evaluate_arguments(const CallArguments& arguments,
                                                        Scope& scope) {
  Arguments values;
  for (const ExpressionPtr& expression : arguments.positional) {
    ASSIGN_OR_RETURN(Value value, evaluate(*expression, scope));
    values.positional.push_back(std::move(value));
  }
  for (const auto& [name, expression] : arguments.named) {
    ASSIGN_OR_RETURN(Value value, evaluate(*expression, scope));
    values.named.emplace_back(name, std::move(value));
  }
  return values;
}

Evaluator::Result Evaluator::evaluate_node(const Call& call, Scope& scope) {
  ASSIGN_OR_RETURN(const Value callee, evaluate(*call.callee, scope));
  ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(call.arguments, scope));
  if (const auto* macro = callee.get_if<const MacroStatement*>()) {
    return call_macro(**macro, arguments);
  }
  if (const auto* function = callee.get_if<const Function*>()) {
    Result result = (*function)->call(runtime_, arguments);
    if (result.ok() || runtime_.raised()) return result;
    return in_call("function", (*function)->name, result.status());
  }
  if (const auto* bound = callee.get_if<std::shared_ptr<const BoundMethod>>()) {
    const Method& method = *(*bound)->method;
    Result result = method.call(runtime_, (*bound)->self, arguments);
    return result.ok() ? std::move(result) : in_call("method", method.name, result.status());
  }
  if (callee.is_undefined()) return undefined_error(*callee.get_if<Undefined>());
  return render_error("a ", type_name(callee), " cannot be called");
}

Evaluator::Result Evaluator::call_macro(const MacroStatement& macro, const Arguments& arguments) {
  Scope scope(&root_);
  const size_t num_given = arguments.positional.size();
  if (num_given > macro.parameters.size()) {
    return render_error("macro '", macro.name, "' takes at most ",
                        std::to_string(macro.parameters.size()), " arguments");
  }
  size_t num_named_used = 0;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const std::string& name = macro.parameters[i].first;
    const ExpressionPtr& fallback = macro.parameters[i].second;
    const auto named = std::find_if(arguments.named.begin(), arguments.named.end(),
                                    [&](const auto& argument) { return argument.first == name; });
    const bool is_named = named != arguments.named.end();
    num_named_used += is_named ? 1 : 0;
    Value value = Value::undefined("parameter '" + name + "' was not provided");
    if (i < num_given && is_named) {
      return render_error("macro '", macro.name, "' got '", name, "' twice");
    } else if (i < num_given) {
      value = arguments.positional[i];
    } else if (is_named) {
      value = named->second;
    } else if (fallback) {
      ASSIGN_OR_RETURN(value, evaluate(*fallback, scope));
    }
    scope.set(name, std::move(value));
  }
  if (num_named_used != arguments.named.size()) {
    return render_error("macro '", macro.name, "' got an argument that it does not take, or twice");
  }
  MarkedText captured;
  MarkedText* outer = std::exchange(output_, &captured);
  const FlowResult flow = run(macro.body, scope);
  output_ = outer;
  if (!flow.ok()) return flow.status();
  return Value(std::move(captured));
}

Evaluator::Result Evaluator::apply_filter(const FilterCall& call, const Value& input,
                                          Scope& scope) {
  ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(call.arguments, scope));
  Result result = call.filter->apply(runtime_, input, arguments);
  return result.ok() ? std::move(result) : in_call("filter", call.filter->name, result.status());
}

Evaluator::Result Evaluator::evaluate_node(const FilterCall& call, Scope& scope) {
  ASSIGN_OR_RETURN(const Value input, evaluate(*call.input, scope));
  return apply_filter(call, input, scope);
}

Evaluator::Result Evaluator::evaluate_node(const TestCall& call, Scope& scope) {
  ASSIGN_OR_RETURN(const Value input, evaluate(*call.input, scope));
  ASSIGN_OR_RETURN(const Arguments arguments, evaluate_arguments(call.arguments, scope));
  const absl::StatusOr<bool> holds = call.test->holds(runtime_, input, arguments);
  if (!holds.ok()) return in_call("test", call.test->name, holds.status());
  return Value(*holds);
}

Evaluator::Result Evaluator::evaluate_node(const Unary& unary, Scope& scope) {
  ASSIGN_OR_RETURN(const Value operand, evaluate(*unary.operand, scope));
  if (unary.op == UnaryOp::kNot) return Value(!is_truthy(operand));
  ASSIGN_OR_RETURN(const Value negative, negate(operand));
  return unary.op == UnaryOp::kMinus ? Result(negative) : negate(negative);
}

Evaluator::Result Evaluator::evaluate_node(const Binary& binary, Scope& scope) {
  ASSIGN_OR_RETURN(Value left, evaluate(*binary.left, scope));
  ASSIGN_OR_RETURN(const Value right, evaluate(*binary.right, scope));
  return arithmetic(runtime_, binary.op, std::move(left), right);
}

Evaluator::Result Evaluator::evaluate_node(const Logic& logic, Scope& scope) {
  ASSIGN_OR_RETURN(Value left, evaluate(*logic.left, scope));
  if (is_truthy(left) == (logic.op == LogicOp::kOr)) return left;
  return evaluate(*logic.right, scope);
}

Evaluator::Result Evaluator::evaluate_node(const Concat& concat, Scope& scope) {
  Value text = std::string();
  for (const ExpressionPtr& expression : concat.parts) {
    ASSIGN_OR_RETURN(const Value part, evaluate(*expression, scope));
    if (const MarkedText* string = part.text()) {
      ASSIGN_OR_RETURN(text, append_text(runtime_, std::move(text), *string));
    } else {
      ASSIGN_OR_RETURN(const MarkedText printed, to_text(runtime_, part));
      ASSIGN_OR_RETURN(text, append_text(runtime_, std::move(text), printed));
    }
  }
  return text;
}

Evaluator::Result Evaluator::evaluate_node(const Comparison& comparison, Scope& scope) {
  ASSIGN_OR_RETURN(Value left, evaluate(*comparison.first, scope));
  for (const auto& [op, expression] : comparison.rest) {
    ASSIGN_OR_RETURN(Value right, evaluate(*expression, scope));
    bool holds = false;
    if (op == CompareOp::kEqual || op == CompareOp::kNotEqual) {
      ASSIGN_OR_RETURN(const bool same, equal(runtime_, left, right));
      holds = same == (op == CompareOp::kEqual);
    } else if (op == CompareOp::kIn || op == CompareOp::kNotIn) {
      ASSIGN_OR_RETURN(const bool inside, contains(runtime_, right, left));
      holds = inside == (op == CompareOp::kIn);
    } else {
      ASSIGN_OR_RETURN(const std::partial_ordering relation, order(runtime_, left, right));
      holds = op == CompareOp::kLess        ? relation < 0
              : op == CompareOp::kLessEqual ? relation <= 0
              : op == CompareOp::kGreater   ? relation > 0
                                            : relation >= 0;
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Evaluator::Result Evaluator::evaluate_node(const Conditional& conditional, Scope& scope) {
  ASSIGN_OR_RETURN(const Value condition, evaluate(*conditional.condition, scope));
  if (is_truthy(condition)) return evaluate(*conditional.then, scope);
  if (conditional.otherwise) return evaluate(*conditional.otherwise, scope);
  return Value::undefined("an inline if without else was false");
}

}  // namespace pbserve::models::jinja
