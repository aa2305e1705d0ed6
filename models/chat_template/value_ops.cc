#include "models/chat_template/value_ops.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "models/chat_template/text.h"

namespace pbserve::models::jinja {
namespace {

absl::StatusOr<bool> equal_sequences(Runtime& runtime, const Sequence& left,
                                     const Sequence& right) {
  if (left.kind() != right.kind() || left.kind() == SequenceKind::kIterator) {
    return &left == &right;
  }
  if (left.items().size() != right.items().size()) return false;
  for (size_t i = 0; i < left.items().size(); ++i) {
    ASSIGN_OR_RETURN(const bool same, equal(runtime, left.items()[i], right.items()[i]));
    if (!same) return false;
  }
  return true;
}

absl::StatusOr<bool> equal_dicts(Runtime& runtime, const Dict& left, const Dict& right) {
  if (left.items().size() != right.items().size()) return false;
  for (const auto& [key, value] : left.items()) {
    const Value* other = right.find(*key.string());
    if (!other) return false;
    ASSIGN_OR_RETURN(const bool same, equal(runtime, value, *other));
    if (!same) return false;
  }
  return true;
}

absl::Status unordered_types(const Value& left, const Value& right) {
  return render_error("values of types ", type_name(left), " and ", type_name(right),
                      " have no order");
}

}  // namespace

absl::Status undefined_error(const Undefined& undefined) {
  return render_error(undefined.why ? *undefined.why : "a value is undefined");
}

bool is_truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const auto number = as_double(value)) return *number != 0;
  if (const std::string* text = value.string()) return !text->empty();
  if (const Dict* dict = value.dict()) return !dict->items().empty();
  if (const Sequence* sequence = value.sequence()) {
    return sequence->kind() == SequenceKind::kIterator || !sequence->items().empty();
  }
  return true;
}

absl::StatusOr<bool> equal(Runtime& runtime, const Value& left, const Value& right) {
  RETURN_IF_ERROR(runtime.charge_items(1));
  if (const auto a = as_integer(left), b = as_integer(right); a && b) return *a == *b;
  if (const auto a = as_double(left), b = as_double(right); a && b) return *a == *b;
  if (left.data().index() != right.data().index()) return false;
  if (const std::string* text = left.string()) {
    RETURN_IF_ERROR(runtime.charge(text->size()));
    return *text == *right.string();
  }
  if (left.sequence()) return equal_sequences(runtime, *left.sequence(), *right.sequence());
  if (left.dict()) return equal_dicts(runtime, *left.dict(), *right.dict());
  if (left.is_undefined() || left.is_none()) return true;
  if (const auto* space = left.get_if<Namespace*>()) return *space == *right.get_if<Namespace*>();
  return render_error("values of type ", type_name(left), " cannot be compared");
}

absl::StatusOr<std::partial_ordering> order(Runtime& runtime, const Value& left,
                                            const Value& right) {
  RETURN_IF_ERROR(runtime.charge_items(1));
  for (const Value* value : {&left, &right}) {
    if (value->is_undefined()) return undefined_error(*value->get_if<Undefined>());
  }
  if (const auto a = as_integer(left), b = as_integer(right); a && b) {
    return std::partial_ordering(*a <=> *b);
  }
  if (const auto a = as_double(left), b = as_double(right); a && b) return *a <=> *b;
  if (left.string() && right.string()) {  // UTF-8 sorts as its code points do
    RETURN_IF_ERROR(runtime.charge(std::min(left.string()->size(), right.string()->size())));
    return std::partial_ordering(*left.string() <=> *right.string());
  }
  const Sequence* a = left.sequence();
  const Sequence* b = right.sequence();
  const bool ordered = a && b && a->kind() == b->kind() &&
                       (a->kind() == SequenceKind::kList || a->kind() == SequenceKind::kTuple);
  if (!ordered) return unordered_types(left, right);
  const size_t common = std::min(a->items().size(), b->items().size());
  for (size_t i = 0; i < common; ++i) {
    ASSIGN_OR_RETURN(const bool same, equal(runtime, a->items()[i], b->items()[i]));
    if (!same) return order(runtime, a->items()[i], b->items()[i]);
  }
  return std::partial_ordering(a->items().size() <=> b->items().size());
}

absl::StatusOr<bool> contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_undefined()) return false;
  if (const std::string* text = container.string()) {
    if (item.is_undefined()) return undefined_error(*item.get_if<Undefined>());
    if (!item.string()) {
      return render_error("a ", type_name(item), " cannot be searched for in a str");
    }
    RETURN_IF_ERROR(runtime.charge(text->size()));
    return text->find(*item.string()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (item.sequence() || item.dict()) {
      return render_error("a ", type_name(item), " cannot be the key of a dict");
    }
    return item.string() && dict->find(*item.string());
  }
  if (!container.sequence()) {
    return render_error("nothing can be searched for in a ", type_name(container));
  }
  const Sequence& sequence = *container.sequence();
  for (size_t i = sequence.taken(); i < sequence.items().size(); ++i) {
    sequence.take(1);
    ASSIGN_OR_RETURN(const bool same, equal(runtime, sequence.items()[i], item));
    if (same) return true;
  }
  return false;
}

absl::StatusOr<int64_t> length(const Value& value) {
  size_t count = 0;
  if (const std::string* text = value.string()) {
    count = count_code_points(*text);
  } else if (const Dict* dict = value.dict()) {
    count = dict->items().size();
  } else if (value.sequence() && value.sequence()->kind() != SequenceKind::kIterator) {
    count = value.sequence()->items().size();
  } else if (!value.is_undefined()) {
    return render_error("a ", type_name(value), " has no length");
  }
  return static_cast<int64_t>(count);
}

absl::StatusOr<std::vector<Value>> iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  if (const Sequence* sequence = value.sequence()) {
    const size_t taken = sequence->taken();
    const size_t count = sequence->items().size() - taken;
    RETURN_IF_ERROR(runtime.charge_items(count));
    sequence->take(count);
    items.assign(sequence->items().begin() + static_cast<std::ptrdiff_t>(taken),
                 sequence->items().end());
  } else if (const Dict* dict = value.dict()) {
    RETURN_IF_ERROR(runtime.charge_items(dict->items().size()));
    for (const auto& [key, item] : dict->items()) items.push_back(key);
  } else if (const std::string* text = value.string()) {
    RETURN_IF_ERROR(runtime.charge_items(text->size()));
    for (size_t pos = 0; pos < text->size();) {
      const size_t start = pos;
      next_code_point(*text, &pos);
      items.emplace_back(value.text()->cut(std::string_view(*text).substr(start, pos - start)));
    }
  } else if (!value.is_undefined()) {
    return render_error("a ", type_name(value), " has no items");
  }
  return items;
}

}  // namespace pbserve::models::jinja
