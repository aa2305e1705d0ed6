// The access half of value_ops.h: attributes, items and slices, by the rules of Jinja's
// environment: an attribute is looked for as a method first and then as an item, an item the
// other way round.

#include <algorithm>

#include "models/chat_template/builtins.h"
#include "models/chat_template/text.h"
#include "models/chat_template/value_ops.h"

namespace pbserve::models::jinja {
namespace {

std::optional<Value> member(const Value& object, const std::string& name) {
  if (const auto* space = object.get_if<Namespace*>()) {
    const Value* found = (*space)->find(name);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (is_mutator(object, name)) {
    return Value::undefined(concat("method '", name, "' changes its object, which is not allowed"));
  }
  const Method* method = find_method(object, name);
  if (!method) return std::nullopt;
  return Value(std::make_shared<const BoundMethod>(BoundMethod{method, object}));
}

std::optional<Value> item_at(const Value& object, int64_t index) {
  const std::string* text = object.string();
  const Sequence* sequence = object.sequence();
  const bool indexed = text || (sequence && (sequence->kind() == SequenceKind::kList ||
                                             sequence->kind() == SequenceKind::kTuple ||
                                             sequence->kind() == SequenceKind::kRange));
  if (!indexed) return std::nullopt;
  const auto count =
      static_cast<int64_t>(text ? count_code_points(*text) : sequence->items().size());
  if (index < 0) index += count;
  if (index < 0 || index >= count) return std::nullopt;
  if (sequence) return sequence->items()[static_cast<size_t>(index)];
  size_t start = 0;
  for (int64_t i = 0; i < index; ++i) next_code_point(*text, &start);
  size_t end = start;
  next_code_point(*text, &end);
  return Value(object.text()->cut(std::string_view(*text).substr(start, end - start)));
}

Value nothing_there(const Value& object, const std::string& key) {
  return Value::undefined(concat("'", type_name(object), "' has no attribute or item ", key));
}

// Python's slice.indices(): the positions start, start + step, ... that are before stop.
struct Positions {
  int64_t start, stop, step;
};

absl::StatusOr<Positions> positions_of(const Value& start, const Value& stop, const Value& step,
                                       int64_t count) {
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->get_if<int64_t>()) {
      return render_error("a slice needs integers, not a ", type_name(*part));
    }
  }
  const int64_t stride = step.is_none() ? 1 : *step.get_if<int64_t>();
  if (stride == 0) return render_error("the step of a slice is zero");
  const int64_t lowest = stride < 0 ? -1 : 0;
  const int64_t highest = stride < 0 ? count - 1 : count;
  const auto clamp = [&](const Value& part, int64_t fallback) {
    if (part.is_none()) return fallback;
    const int64_t position = *part.get_if<int64_t>();
    return std::clamp(position < 0 ? position + count : position, lowest, highest);
  };
  return Positions{.start = clamp(start, stride < 0 ? highest : lowest),
                   .stop = clamp(stop, stride < 0 ? lowest : highest),
                   .step = stride};
}

// Calls visit(i) for each position. The step may be huge: i must not overflow.
template <class Visit>
void visit_positions(const Positions& positions, Visit visit) {
  int64_t i = positions.start;
  while (positions.step > 0 ? i < positions.stop : i > positions.stop) {
    visit(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, positions.step, &i)) return;
  }
}

}  // namespace

absl::StatusOr<Value> get_attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) return undefined_error(*object.get_if<Undefined>());
  if (std::optional<Value> found = member(object, name)) return *std::move(found);
  if (const Dict* dict = object.dict()) {
    if (const Value* found = dict->find(name)) return *found;
  }
  return nothing_there(object, concat("'", name, "'"));
}

absl::StatusOr<Value> get_item(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_undefined()) return undefined_error(*object.get_if<Undefined>());
  if (const std::string* name = key.string()) {
    if (const Dict* dict = object.dict()) {
      if (const Value* found = dict->find(*name)) return *found;
    }
    if (std::optional<Value> found = member(object, *name)) return *std::move(found);
    return nothing_there(object, concat("'", *name, "'"));
  }
  const int64_t* index = key.get_if<int64_t>();
  const bool* flag = key.get_if<bool>();
  if (!index && !flag) return nothing_there(object, concat("of type ", type_name(key)));
  if (const std::string* text = object.string()) RETURN_IF_ERROR(runtime.charge(text->size()));
  const int64_t at = index ? *index : (*flag ? 1 : 0);
  if (std::optional<Value> found = item_at(object, at)) return *std::move(found);
  return nothing_there(object, std::to_string(at));
}

absl::StatusOr<Value> get_slice(Runtime& runtime, const Value& object, const Value& start,
                                const Value& stop, const Value& step) {
  if (object.is_undefined()) return undefined_error(*object.get_if<Undefined>());
  const std::string* text = object.string();
  const Sequence* sequence = object.sequence();
  if (sequence && sequence->kind() != SequenceKind::kList &&
      sequence->kind() != SequenceKind::kTuple && sequence->kind() != SequenceKind::kRange) {
    sequence = nullptr;
  }
  if (!text && !sequence) return render_error("a ", type_name(object), " cannot be sliced");
  ASSIGN_OR_RETURN(const int64_t count, length(object));
  ASSIGN_OR_RETURN(const Positions positions, positions_of(start, stop, step, count));
  if (sequence) {
    std::vector<Value> items;
    RETURN_IF_ERROR(
        runtime.charge_items(static_cast<size_t>(std::abs(positions.stop - positions.start))));
    visit_positions(positions, [&](size_t i) { items.push_back(sequence->items()[i]); });
    return Sequence::make(sequence->kind(), std::move(items));
  }
  RETURN_IF_ERROR(runtime.charge_items(text->size()));
  const std::vector<size_t> offsets = code_point_offsets(*text);
  MarkedText part;
  visit_positions(positions, [&](size_t i) {
    const std::string_view point(text->data() + offsets[i], offsets[i + 1] - offsets[i]);
    part.append(*object.text(), point);
  });
  return Value(std::move(part));
}

}  // namespace pbserve::models::jinja
