// The statements of Evaluator.

#include "models/chat_template/evaluator.h"
#include "models/chat_template/value_ops.h"
#include "models/chat_template/value_text.h"

namespace pbserve::models::jinja {

absl::StatusOr<MarkedText> Evaluator::render(const Block& block) {
  MarkedText text;
  output_ = &text;
  const FlowResult flow = run(block, root_);
  output_ = nullptr;
  if (!flow.ok()) return flow.status();
  return text;
}

absl::Status Evaluator::check_output() const {
  if (output_->size() <= runtime_.limits().output_bytes) return absl::OkStatus();
  return render_error("the output is longer than the limit of ",
                      std::to_string(runtime_.limits().output_bytes), " bytes");
}

Evaluator::FlowResult Evaluator::run(const Block& block, Scope& scope) {
  ++nesting_;
  FlowResult flow = Flow::kNext;
  for (const Statement& statement : block) {
    absl::Status ready = check_nesting();
    if (ready.ok()) ready = runtime_.charge(kStepUnits);
    flow = ready.ok()
               ? std::visit([&](const auto& node) { return run_node(node, scope); }, statement.node)
               : FlowResult(ready);
    if (!flow.ok()) flow = locate(flow.status(), statement.line);
    if (!flow.ok() || *flow != Flow::kNext) break;
  }
  --nesting_;
  return flow;
}

Evaluator::FlowResult Evaluator::run_node(const TextStatement& text, Scope&) {
  RETURN_IF_ERROR(runtime_.charge(text.text.size()));
  output_->append(text.text);
  RETURN_IF_ERROR(check_output());
  return Flow::kNext;
}

Evaluator::FlowResult Evaluator::run_node(const OutputStatement& output, Scope& scope) {
  ASSIGN_OR_RETURN(const Value value, evaluate(*output.value, scope));
  RETURN_IF_ERROR(write_text(runtime_, value, output_));
  RETURN_IF_ERROR(check_output());
  return Flow::kNext;
}

Evaluator::FlowResult Evaluator::run_node(const IfStatement& statement, Scope& scope) {
  for (const auto& [condition, body] : statement.branches) {
    ASSIGN_OR_RETURN(const Value value, evaluate(*condition, scope));
    if (is_truthy(value)) return run(body, scope);
  }
  return run(statement.otherwise, scope);
}

Evaluator::FlowResult Evaluator::run_node(const ForStatement& statement, Scope& scope) {
  ASSIGN_OR_RETURN(const Value source, evaluate(*statement.items, scope));
  ASSIGN_OR_RETURN(std::vector<Value> items, iterate(runtime_, source));
  Loop::Condition condition;
  if (statement.condition) {
    condition = [this, &statement, &scope](const Value& item) -> absl::StatusOr<bool> {
      Scope inner(&scope);
      RETURN_IF_ERROR(assign(statement.target, item, inner));
      ASSIGN_OR_RETURN(const Value value, evaluate(*statement.condition, inner));
      return is_truthy(value);
    };
  }
  const auto loop = std::make_shared<Loop>(std::move(items), std::move(condition));
  const absl::StatusOr<bool> any_completed = run_iterations(statement, loop, scope);
  loop->finish();
  if (!any_completed.ok()) return any_completed.status();
  if (*any_completed) return Flow::kNext;
  Scope inner(&scope);
  return run(statement.otherwise, inner);
}

absl::StatusOr<bool> Evaluator::run_iterations(const ForStatement& statement,
                                               const std::shared_ptr<Loop>& loop, Scope& scope) {
  // Jinja's `else` runs unless the body reached its end once: an iteration that `break` or
  // `continue` cut short does not count.
  bool any_completed = false;
  Scope inner(&scope);
  for (;;) {
    ASSIGN_OR_RETURN(std::optional<Value> item, loop->advance());
    if (!item) return any_completed;
    inner.clear();
    inner.set("loop", Value(loop));
    RETURN_IF_ERROR(assign(statement.target, *std::move(item), inner));
    ASSIGN_OR_RETURN(const Flow flow, run(statement.body, inner));
    if (flow == Flow::kBreak) return any_completed;
    any_completed = any_completed || flow == Flow::kNext;
  }
}

absl::Status Evaluator::assign(const Target& target, Value value, Scope& scope) {
  if (!target.parts.empty()) {
    ASSIGN_OR_RETURN(std::vector<Value> items, iterate(runtime_, value));
    if (items.size() != target.parts.size()) {
      return render_error("cannot assign ", std::to_string(items.size()), " values to ",
                          std::to_string(target.parts.size()), " names");
    }
    for (size_t i = 0; i < items.size(); ++i) {
      RETURN_IF_ERROR(assign(target.parts[i], std::move(items[i]), scope));
    }
    return absl::OkStatus();
  }
  if (target.member.empty()) {
    scope.set(target.name, std::move(value));
    return absl::OkStatus();
  }
  const Value* object = scope.find(target.name);
  const auto* space = object ? object->get_if<Namespace*>() : nullptr;
  if (!space) return render_error("'", target.name, "' is no namespace to assign to");
  (*space)->set(target.member, std::move(value));
  return absl::OkStatus();
}

Evaluator::FlowResult Evaluator::run_node(const SetStatement& statement, Scope& scope) {
  ASSIGN_OR_RETURN(Value value, evaluate(*statement.value, scope));
  RETURN_IF_ERROR(assign(statement.target, std::move(value), scope));
  return Flow::kNext;
}

Evaluator::FlowResult Evaluator::run_node(const SetBlockStatement& statement, Scope& scope) {
  Scope inner(&scope);
  MarkedText captured;
  MarkedText* outer = std::exchange(output_, &captured);
  const FlowResult flow = run(statement.body, inner);
  output_ = outer;
  if (!flow.ok() || *flow != Flow::kNext) return flow;
  Value value = std::move(captured);
  for (const FilterCall& filter : statement.filters) {
    ASSIGN_OR_RETURN(value, apply_filter(filter, value, inner));
  }
  RETURN_IF_ERROR(assign(statement.target, std::move(value), scope));
  return Flow::kNext;
}

Evaluator::FlowResult Evaluator::run_node(const ScopeStatement& statement, Scope& scope) {
  Scope inner(&scope);
  return run(statement.body, inner);
}

Evaluator::FlowResult Evaluator::run_node(const MacroStatement& macro, Scope& scope) {
  scope.set(macro.name, Value(&macro));
  return Flow::kNext;
}

}  // namespace pbserve::models::jinja
