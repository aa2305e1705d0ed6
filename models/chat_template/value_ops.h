// What Python does with its values: truth, comparison, arithmetic, iteration and access.
// Whatever can be large is charged to the runtime before it is done.
#pragma once

#include <compare>
#include <string>
#include <vector>

#include "models/chat_template/ast.h"
#include "models/chat_template/runtime.h"

namespace pbserve::models::jinja {

bool is_truthy(const Value& value);
absl::StatusOr<bool> equal(Runtime& runtime, const Value& left, const Value& right);
// Fails for values without order. kUnordered: one is not a number (NaN).
absl::StatusOr<std::partial_ordering> order(Runtime& runtime, const Value& left,
                                            const Value& right);
absl::StatusOr<bool> contains(Runtime& runtime, const Value& container, const Value& item);

absl::StatusOr<Value> negate(const Value& operand);
absl::StatusOr<Value> arithmetic(Runtime& runtime, BinaryOp op, Value left, const Value& right);
// Appends `tail` to `head`, in place if no one else sees it. REQUIRES: head is a string.
absl::StatusOr<Value> append_text(Runtime& runtime, Value head, const MarkedText& tail);

absl::StatusOr<int64_t> length(const Value& value);
// All items: of a string its characters, of a dict its keys. Takes them from an iterator.
absl::StatusOr<std::vector<Value>> iterate(Runtime& runtime, const Value& value);

// object.name and object[key]. What is not there is undefined; anything asked of an undefined
// object is an error. Loops are the evaluator's.
absl::StatusOr<Value> get_attribute(const Value& object, const std::string& name);
absl::StatusOr<Value> get_item(Runtime& runtime, const Value& object, const Value& key);
absl::StatusOr<Value> get_slice(Runtime& runtime, const Value& object, const Value& start,
                                const Value& stop, const Value& step);  // none: not given

absl::Status undefined_error(const Undefined& undefined);

}  // namespace pbserve::models::jinja
