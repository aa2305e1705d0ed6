#include "models/chat_template/loop.h"

#include <limits>

#include "models/chat_template/builtins.h"

namespace pbserve::models::jinja {

absl::Status Loop::look_ahead(size_t count) {
  while (ahead_.size() < count && pos_ < items_.size()) {
    Value item = std::move(items_[pos_++]);
    bool passes = true;
    if (condition_) {
      ASSIGN_OR_RETURN(passes, condition_(item));
    }
    if (passes) ahead_.push_back(std::move(item));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Value>> Loop::advance() {
  RETURN_IF_ERROR(look_ahead(1));
  if (ahead_.empty()) return std::optional<Value>();
  previous_ = std::move(current_);
  current_ = std::move(ahead_.front());
  ahead_.pop_front();
  ++index0_;
  return current_;
}

void Loop::finish() {
  items_.clear();
  ahead_.clear();
  pos_ = 0;
  condition_ = nullptr;
}

absl::StatusOr<Value> Loop::attribute(const std::string& name) {
  if (name == "index0") return Value(index0_);
  if (name == "index") return Value(index0_ + 1);
  if (name == "first") return Value(index0_ == 0);
  if (name == "depth") return Value(int64_t{1});  // loops that call themselves are not supported
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") return previous_.value_or(Value::undefined("there is no previous item"));
  if (name == "last" || name == "nextitem") {
    RETURN_IF_ERROR(look_ahead(1));
    if (name == "last") return Value(ahead_.empty());
    return ahead_.empty() ? Value::undefined("there is no next item") : ahead_.front();
  }
  if (name == "length" || name == "revindex" || name == "revindex0") {
    RETURN_IF_ERROR(look_ahead(std::numeric_limits<size_t>::max()));
    const auto to_come = static_cast<int64_t>(ahead_.size());
    return Value(name == "length" ? index0_ + 1 + to_come : to_come + (name == "revindex" ? 1 : 0));
  }
  const Value self = Value::undefined("'loop' has no attribute '" + name + "'");
  return self;
}

}  // namespace pbserve::models::jinja
