// The `loop` variable of a running for loop. Items pass the loop's condition when they are asked
// for, as in Jinja, where `loop.last` looks one item ahead and `loop.length` at all of them.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

class Loop {
 public:
  using Condition = std::function<absl::StatusOr<bool>(const Value& item)>;

  // `condition` may be empty. It is not called after finish().
  Loop(std::vector<Value> items, Condition condition)
      : items_(std::move(items)), condition_(std::move(condition)) {}

  // Moves to the next item; none at the end.
  absl::StatusOr<std::optional<Value>> advance();
  // Forgets the items to come: a template may keep `loop`, but not the scope of its condition.
  void finish();

  // loop.first and so on. Undefined if there is none of that name.
  absl::StatusOr<Value> attribute(const std::string& name);
  int64_t index0() const { return index0_; }

 private:
  // Reads items until `count` wait in ahead_, or none is left.
  absl::Status look_ahead(size_t count);

  std::vector<Value> items_;
  size_t pos_ = 0;  // items_[0, pos_) have been read
  Condition condition_;
  std::deque<Value> ahead_;  // they passed the condition and wait for their turn
  std::optional<Value> previous_, current_;
  int64_t index0_ = -1;
};

}  // namespace pbserve::models::jinja
