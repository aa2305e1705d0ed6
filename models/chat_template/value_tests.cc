// The tests behind "is".

#include <algorithm>
#include <cmath>

#include "models/chat_template/builtins.h"
#include "models/chat_template/text.h"
#include "models/chat_template/value_ops.h"
#include "models/chat_template/value_text.h"

namespace pbserve::models::jinja {
namespace {

using Result = absl::StatusOr<bool>;

// A test of the value alone.
template <bool (*holds)(const Value&)>
Result plain(Runtime&, const Value& value, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  return holds(value);
}

template <class T>
bool is_type(const Value& value) {
  return value.get_if<T>() != nullptr;
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_true(const Value& value) { return value.get_if<bool>() && *value.get_if<bool>(); }
bool is_false(const Value& value) { return value.get_if<bool>() && !*value.get_if<bool>(); }
bool is_number(const Value& value) { return as_double(value).has_value(); }  // booleans too
bool is_string(const Value& value) { return value.string() != nullptr; }
bool is_mapping(const Value& value) { return value.dict() != nullptr; }

// Python finds a __call__ in an undefined value too, although it fails.
bool is_callable(const Value& value) {
  return value.is_undefined() || is_type<const Function*>(value) ||
         is_type<const MacroStatement*>(value) ||
         is_type<std::shared_ptr<const BoundMethod>>(value);
}

bool is_iterable(const Value& value) {
  return is_string(value) || is_mapping(value) || is_undefined(value) || value.sequence() ||
         is_type<std::shared_ptr<Loop>>(value);
}

// For Jinja whatever has a length and takes a subscript, strings and dicts among them.
bool is_sequence(const Value& value) {
  const Sequence* sequence = value.sequence();
  if (!sequence) return is_string(value) || is_mapping(value) || is_undefined(value);
  return sequence->kind() == SequenceKind::kList || sequence->kind() == SequenceKind::kTuple ||
         sequence->kind() == SequenceKind::kRange;
}

template <bool (*holds)(std::string_view)>
Result of_text(Runtime& runtime, const Value& value, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  ASSIGN_OR_RETURN(const MarkedText text, to_text(runtime, value));
  return holds(text.bytes());
}

absl::StatusOr<Value> only_argument(const Arguments& arguments) {
  if (arguments.positional.size() == 1 && arguments.named.empty()) return arguments.positional[0];
  return render_error("takes one argument");
}

// value % divisor == remainder
Result remainder_is(Runtime& runtime, const Value& value, const Value& divisor, int64_t remainder) {
  if (value.string()) return render_error("a str has no remainder");
  ASSIGN_OR_RETURN(const Value found, arithmetic(runtime, BinaryOp::kModulo, value, divisor));
  return equal(runtime, found, remainder);
}

template <int64_t remainder>
Result parity(Runtime& runtime, const Value& value, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  return remainder_is(runtime, value, int64_t{2}, remainder);
}

Result divisible_by(Runtime& runtime, const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value divisor, only_argument(arguments));
  return remainder_is(runtime, value, divisor, 0);
}

template <bool wanted>
Result equals(Runtime& runtime, const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value other, only_argument(arguments));
  ASSIGN_OR_RETURN(const bool same, equal(runtime, value, other));
  return same == wanted;
}

template <bool (*holds)(std::partial_ordering)>
Result ordered(Runtime& runtime, const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value other, only_argument(arguments));
  ASSIGN_OR_RETURN(const std::partial_ordering relation, order(runtime, value, other));
  return holds(relation);
}

Result is_in(Runtime& runtime, const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value container, only_argument(arguments));
  return contains(runtime, container, value);
}

// Identity, which Python defines for the constants alone; of other values it tells nothing.
Result same_as(Runtime&, const Value& value, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Value other, only_argument(arguments));
  if (!is_type<bool>(other) && !other.is_none()) {
    return render_error("sameas compares with true, false and none alone");
  }
  if (other.is_none()) return value.is_none();
  return value.get_if<bool>() && *value.get_if<bool>() == *other.get_if<bool>();
}

constexpr Test kTests[] = {{"!=", equals<false>},
                           {"<", ordered<std::is_lt>},
                           {"<=", ordered<std::is_lteq>},
                           {"==", equals<true>},
                           {">", ordered<std::is_gt>},
                           {">=", ordered<std::is_gteq>},
                           {"boolean", plain<is_type<bool>>},
                           {"callable", plain<is_callable>},
                           {"defined", plain<is_defined>},
                           {"divisibleby", divisible_by},
                           {"eq", equals<true>},
                           {"equalto", equals<true>},
                           {"even", parity<0>},
                           {"false", plain<is_false>},
                           {"float", plain<is_type<double>>},
                           {"ge", ordered<std::is_gteq>},
                           {"greaterthan", ordered<std::is_gt>},
                           {"gt", ordered<std::is_gt>},
                           {"in", is_in},
                           {"integer", plain<is_type<int64_t>>},
                           {"iterable", plain<is_iterable>},
                           {"le", ordered<std::is_lteq>},
                           {"lessthan", ordered<std::is_lt>},
                           {"lower", of_text<is_lower>},
                           {"lt", ordered<std::is_lt>},
                           {"mapping", plain<is_mapping>},
                           {"ne", equals<false>},
                           {"none", plain<is_type<None>>},
                           {"number", plain<is_number>},
                           {"odd", parity<1>},
                           {"sameas", same_as},
                           {"sequence", plain<is_sequence>},
                           {"string", plain<is_string>},
                           {"true", plain<is_true>},
                           {"undefined", plain<is_undefined>},
                           {"upper", of_text<is_upper>}};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests),
                                   [name](const Test& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace pbserve::models::jinja
