// Filters of lists, dicts and what else has items. Where Jinja gives a generator, so do these:
// it is always true, has no length and gives its items once.

#include <algorithm>

#include "models/chat_template/filters.h"
#include "models/chat_template/value_ops.h"
#include "models/chat_template/value_text.h"

namespace pbserve::models::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result count(Runtime&, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  ASSIGN_OR_RETURN(const int64_t number, length(input));
  return Value(number);
}

Result join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"d", "attribute"}));
  ASSIGN_OR_RETURN(const std::string attribute, attribute_of(bound, 1));
  MarkedText separator;
  if (bound.at(0)) RETURN_IF_ERROR(write_text(runtime, *bound.at(0), &separator));
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  MarkedText text;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const Value item, pick(runtime, items[i], attribute));
    if (i > 0) {
      RETURN_IF_ERROR(runtime.charge(separator.size()));
      text.append(separator);
    }
    RETURN_IF_ERROR(write_text(runtime, item, &text));
  }
  return Value(std::move(text));
}

Result items_of(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  if (input.is_undefined()) return Sequence::make(SequenceKind::kIterator, {});
  if (!input.dict()) return render_error("a ", type_name(input), " has no pairs of key and value");
  RETURN_IF_ERROR(runtime.charge_items(2 * input.dict()->items().size()));
  return pairs(*input.dict(), SequenceKind::kIterator);
}

Result to_list(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  ASSIGN_OR_RETURN(Items items, iterate(runtime, input));
  return Sequence::make(SequenceKind::kList, std::move(items));
}

Result first(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  if (const Sequence* sequence = input.sequence()) {  // takes no more than one of an iterator
    if (sequence->taken() >= sequence->items().size()) {
      return Value::undefined("there is no first item");
    }
    const Value item = sequence->items()[sequence->taken()];
    sequence->take(1);
    return item;
  }
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  return items.empty() ? Value::undefined("there is no first item") : items.front();
}

Result last(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  if (const Sequence* sequence = input.sequence()) {
    if (sequence->kind() == SequenceKind::kIterator) {
      return render_error("a generator has no last item");
    }
    if (!sequence->items().empty()) return sequence->items().back();
  }
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  return items.empty() ? Value::undefined("there is no last item") : items.back();
}

Result reverse(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  if (input.string()) {
    return get_slice(runtime, input, None{}, None{}, int64_t{-1});
  }
  ASSIGN_OR_RETURN(Items items, iterate(runtime, input));
  std::reverse(items.begin(), items.end());
  return Sequence::make(SequenceKind::kIterator, std::move(items));
}

Result map(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Items mapped;
  if (!is_truthy(input)) return Sequence::make(SequenceKind::kIterator, {});
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  if (arguments.positional.empty()) {
    ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"attribute", "default"}));
    ASSIGN_OR_RETURN(const std::string attribute, attribute_of(bound, 0));
    if (attribute.empty()) return render_error("map needs a filter or an attribute");
    for (const Value& item : items) {
      ASSIGN_OR_RETURN(Value value, pick(runtime, item, attribute));
      const bool missing = value.is_undefined() && bound.at(1) && !bound.at(1)->is_none();
      mapped.push_back(missing ? *bound.at(1) : std::move(value));
    }
  } else {
    const std::string* name = arguments.positional[0].string();
    const Filter* filter = name ? find_filter(*name) : nullptr;
    if (!filter) return render_error("map: there is no filter ", name ? *name : "of that name");
    Arguments rest = arguments;
    rest.positional.erase(rest.positional.begin());
    for (const Value& item : items) {
      RETURN_IF_ERROR(runtime.charge_items(1));
      ASSIGN_OR_RETURN(Value value, filter->apply(runtime, item, rest));
      mapped.push_back(std::move(value));
    }
  }
  return Sequence::make(SequenceKind::kIterator, std::move(mapped));
}

enum class Choice { kKeep, kDrop };
enum class Subject { kItem, kAttribute };

// select, reject, selectattr, rejectattr: by a test, or without one by truth.
template <Choice choice, Subject subject>
Result choose(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Arguments rest = arguments;
  if (!is_truthy(input)) return Sequence::make(SequenceKind::kIterator, {});
  const auto take_name = [&rest]() -> absl::StatusOr<std::string> {
    const Value name = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    if (name.get_if<int64_t>()) return std::to_string(*name.get_if<int64_t>());
    if (!name.string()) return render_error("a name is not a string");
    return *name.string();
  };
  std::string attribute;
  if (subject == Subject::kAttribute) {
    if (rest.positional.empty()) return render_error("needs the name of an attribute");
    ASSIGN_OR_RETURN(attribute, take_name());
  }
  const Test* test = nullptr;
  if (!rest.positional.empty()) {
    ASSIGN_OR_RETURN(const std::string name, take_name());
    test = find_test(name);
    if (!test) return render_error("there is no test ", name);
  }
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  Items chosen;
  for (const Value& item : items) {
    RETURN_IF_ERROR(runtime.charge_items(1));
    ASSIGN_OR_RETURN(const Value value, pick(runtime, item, attribute));
    bool holds = is_truthy(value);
    if (test) {
      ASSIGN_OR_RETURN(holds, test->holds(runtime, value, rest));
    }
    if (holds == (choice == Choice::kKeep)) chosen.push_back(item);
  }
  return Sequence::make(SequenceKind::kIterator, std::move(chosen));
}

}  // namespace

std::span<const Filter> sequence_filters() {
  static constexpr Filter kFilters[] = {{"count", count},
                                        {"first", first},
                                        {"items", items_of},
                                        {"join", join},
                                        {"last", last},
                                        {"length", count},
                                        {"list", to_list},
                                        {"map", map},
                                        {"reject", choose<Choice::kDrop, Subject::kItem>},
                                        {"rejectattr", choose<Choice::kDrop, Subject::kAttribute>},
                                        {"reverse", reverse},
                                        {"select", choose<Choice::kKeep, Subject::kItem>},
                                        {"selectattr", choose<Choice::kKeep, Subject::kAttribute>}};
  return kFilters;
}

}  // namespace pbserve::models::jinja
