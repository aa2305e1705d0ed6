// The arithmetic of value_ops.h: Python's, with integers of 64 bits whose overflow is an error.

#include <cmath>
#include <limits>
#include <optional>

#include "models/chat_template/text.h"
#include "models/chat_template/value_ops.h"

namespace pbserve::models::jinja {
namespace {

absl::Status overflow() { return render_error("an integer does not fit 64 bits"); }
absl::Status division_by_zero() { return render_error("division by zero"); }

absl::StatusOr<Value> integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return division_by_zero();
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 == 1 && __builtin_mul_overflow(result, base, &result)) return overflow();
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return overflow();
  }
  return Value(result);
}

absl::StatusOr<Value> integer_arithmetic(BinaryOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return overflow();
      return Value(result);
    case BinaryOp::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return overflow();
      return Value(result);
    case BinaryOp::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return overflow();
      return Value(result);
    case BinaryOp::kDivide:
      if (b == 0) return division_by_zero();
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case BinaryOp::kPower:
      return integer_power(a, b);
    case BinaryOp::kFloorDivide:
    case BinaryOp::kModulo:
      break;
  }
  if (b == 0) return division_by_zero();
  if (b == -1) {  // the one quotient that overflows
    return op == BinaryOp::kModulo ? Value(int64_t{0})
                                   : integer_arithmetic(BinaryOp::kSubtract, 0, a);
  }
  // Python rounds the quotient down; the remainder has the sign of the divisor.
  const bool adjust = a % b != 0 && (a < 0) != (b < 0);
  return op == BinaryOp::kModulo ? Value(a % b + (adjust ? b : 0))
                                 : Value(a / b - (adjust ? 1 : 0));
}

absl::StatusOr<Value> real_arithmetic(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd:
      return Value(a + b);
    case BinaryOp::kSubtract:
      return Value(a - b);
    case BinaryOp::kMultiply:
      return Value(a * b);
    case BinaryOp::kPower: {
      const double power = std::pow(a, b);
      if (!std::isfinite(power)) return render_error("the result of ** is no finite number");
      return Value(power);
    }
    default:
      break;
  }
  if (b == 0) return division_by_zero();
  if (op == BinaryOp::kDivide) return Value(a / b);
  double remainder = std::fmod(a, b);
  const double quotient = (a - remainder) / b - (remainder != 0 && (remainder < 0) != (b < 0));
  if (op == BinaryOp::kModulo) {
    if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
    return Value(remainder == 0 ? std::copysign(0.0, b) : remainder);
  }
  const double floor = std::floor(quotient);
  return Value(quotient - floor > 0.5 ? floor + 1 : floor);
}

absl::StatusOr<Value> repeat(Runtime& runtime, const Value& value, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const std::string* text = value.string();
  const size_t size = text ? text->size() : value.sequence()->items().size() * kStepUnits;
  if (size == 0 || count == 0) {
    if (text) return Value(std::string());
    return Sequence::make(value.sequence()->kind(), {});
  }
  if (count > runtime.limits().work_units) return runtime.charge(count);
  if (size > std::numeric_limits<size_t>::max() / count) {
    return runtime.charge(std::numeric_limits<size_t>::max());
  }
  RETURN_IF_ERROR(runtime.charge(size * count));
  if (text) {
    MarkedText repeated;
    repeated.reserve(size * count);
    for (size_t i = 0; i < count; ++i) repeated.append(*value.text());
    return Value(std::move(repeated));
  }
  std::vector<Value> items;
  for (size_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.sequence()->items().begin(), value.sequence()->items().end());
  }
  return Sequence::make(value.sequence()->kind(), std::move(items));
}

// A list or tuple, which + joins and * repeats.
const Sequence* array(const Value& value) {
  const Sequence* sequence = value.sequence();
  const bool plain = sequence && (sequence->kind() == SequenceKind::kList ||
                                  sequence->kind() == SequenceKind::kTuple);
  return plain ? sequence : nullptr;
}

absl::StatusOr<Value> join_arrays(Runtime& runtime, const Sequence& left, const Sequence& right) {
  RETURN_IF_ERROR(runtime.charge_items(left.items().size() + right.items().size()));
  std::vector<Value> items = left.items();
  items.insert(items.end(), right.items().begin(), right.items().end());
  return Sequence::make(left.kind(), std::move(items));
}

absl::Status no_operation(BinaryOp op, const Value& left, const Value& right) {
  static constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "**"};
  for (const Value* value : {&left, &right}) {
    if (value->is_undefined()) return undefined_error(*value->get_if<Undefined>());
  }
  if (op == BinaryOp::kModulo && left.string()) {
    return render_error("formatting of a string with % is not supported");
  }
  return render_error("the operator ", kSigns[static_cast<size_t>(op)],
                      " does not take values of types ", type_name(left), " and ",
                      type_name(right));
}

}  // namespace

absl::StatusOr<Value> append_text(Runtime& runtime, Value head, const MarkedText& tail) {
  if (MarkedText* text = head.unshared_text()) {
    RETURN_IF_ERROR(runtime.charge(tail.size()));
    text->append(tail);
    return head;
  }
  RETURN_IF_ERROR(runtime.charge(head.text()->size() + tail.size()));
  MarkedText joined;
  joined.reserve(head.text()->size() + tail.size());
  joined.append(*head.text());
  joined.append(tail);
  return Value(std::move(joined));
}

absl::StatusOr<Value> negate(const Value& operand) {
  if (const auto integer = as_integer(operand)) {
    return integer_arithmetic(BinaryOp::kSubtract, 0, *integer);
  }
  if (const auto real = as_double(operand)) return Value(-*real);
  if (operand.is_undefined()) return undefined_error(*operand.get_if<Undefined>());
  return render_error("a ", type_name(operand), " has no sign");
}

absl::StatusOr<Value> arithmetic(Runtime& runtime, BinaryOp op, Value left, const Value& right) {
  if (const auto a = as_integer(left), b = as_integer(right); a && b) {
    return integer_arithmetic(op, *a, *b);
  }
  if (const auto a = as_double(left), b = as_double(right); a && b) {
    return real_arithmetic(op, *a, *b);
  }
  if (op == BinaryOp::kAdd) {
    if (left.string() && right.string()) {
      return append_text(runtime, std::move(left), *right.text());
    }
    const Sequence* a = array(left);
    const Sequence* b = array(right);
    if (a && b && a->kind() == b->kind()) return join_arrays(runtime, *a, *b);
  }
  if (op == BinaryOp::kMultiply) {
    if ((left.string() || array(left)) && as_integer(right)) {
      return repeat(runtime, left, *as_integer(right));
    }
    if (as_integer(left) && (right.string() || array(right))) {
      return repeat(runtime, right, *as_integer(left));
    }
  }
  return no_operation(op, left, right);
}

}  // namespace pbserve::models::jinja
