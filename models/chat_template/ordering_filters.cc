// Filters that compare items: sort, unique, min, max and sum. Texts compare without regard to
// letter case unless asked.

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "models/chat_template/filters.h"
#include "models/chat_template/text.h"
#include "models/chat_template/value_ops.h"

namespace pbserve::models::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Value fold_case(const Value& value) {
  return value.string() ? Value(to_lower(*value.string())) : value;
}

// One sort key of all items. All are numbers or all are strings, so that their order is total:
// a sort may not stop half way.
absl::Status check_sortable(const Items& keys) {
  for (const Value& key : keys) {
    const auto number = as_double(key);
    const bool like_first =
        keys[0].string() ? key.string() != nullptr : number.has_value() && !std::isnan(*number);
    if (!like_first) {
      return render_error("values of types ", type_name(keys[0]), " and ", type_name(key),
                          " cannot be sorted");
    }
  }
  return absl::OkStatus();
}

int compare_keys(const Value& a, const Value& b) {
  if (a.string()) return a.string()->compare(*b.string());
  const double x = *as_double(a);
  const double y = *as_double(b);
  return x < y ? -1 : x > y ? 1 : 0;
}

// Sorts `items` by `columns`, each of which holds one key for each item.
absl::StatusOr<Items> sort_by(Runtime& runtime, const Items& items,
                              const std::vector<Items>& columns, bool descending) {
  for (const Items& keys : columns) RETURN_IF_ERROR(check_sortable(keys));
  RETURN_IF_ERROR(runtime.charge_items(items.size() * 16));  // for the log of the size
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    for (const Items& keys : columns) {
      const int sign = compare_keys(keys[a], keys[b]);
      if (sign != 0) return descending ? sign > 0 : sign < 0;
    }
    return false;
  });
  Items sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

Result sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound,
                   Bound::bind(arguments, {"reverse", "case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::string attributes, attribute_of(bound, 2));
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  std::vector<Items> columns;
  for (const std::string_view name : split(attributes, ",", -1, Side::kLeft)) {
    const std::string attribute(name);
    Items& keys = columns.emplace_back();
    for (const Value& item : items) {
      ASSIGN_OR_RETURN(Value key, pick(runtime, item, attribute));
      keys.push_back(bound.flag(1) ? std::move(key) : fold_case(key));
    }
  }
  ASSIGN_OR_RETURN(Items sorted, sort_by(runtime, items, columns, bound.flag(0)));
  return Sequence::make(SequenceKind::kList, std::move(sorted));
}

Result dictsort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"case_sensitive", "by", "reverse"}));
  ASSIGN_OR_RETURN(const std::optional<std::string> by, bound.optional_text(1));
  if (by && *by != "key" && *by != "value") return render_error("'by' is not key or value");
  if (!input.dict()) return render_error("a ", type_name(input), " is no dict to sort");
  ASSIGN_OR_RETURN(const Value listed, pairs(*input.dict(), SequenceKind::kList));
  Items keys;
  for (const auto& [key, value] : input.dict()->items()) {
    const Value& chosen = by == "value" ? value : key;
    keys.push_back(bound.flag(0) ? chosen : fold_case(chosen));
  }
  ASSIGN_OR_RETURN(Items sorted,
                   sort_by(runtime, listed.sequence()->items(), {keys}, bound.flag(2)));
  return Sequence::make(SequenceKind::kList, std::move(sorted));
}

Result unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::string attribute, attribute_of(bound, 1));
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  Items kept;
  Items keys;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, pick(runtime, item, attribute));
    if (!bound.flag(0)) key = fold_case(key);
    if (key.dict() || (key.sequence() && key.sequence()->kind() == SequenceKind::kList)) {
      return render_error("a ", type_name(key), " cannot be hashed");
    }
    bool seen = false;
    for (size_t i = 0; i < keys.size() && !seen; ++i) {
      ASSIGN_OR_RETURN(seen, equal(runtime, keys[i], key));
    }
    if (seen) continue;
    keys.push_back(std::move(key));
    kept.push_back(item);
  }
  return Sequence::make(SequenceKind::kIterator, std::move(kept));
}

enum class Extreme { kSmallest, kLargest };

template <Extreme extreme>
Result pick_extreme(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::string attribute, attribute_of(bound, 1));
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  if (items.empty()) return Value::undefined("there is no item in an empty sequence");
  Value best, best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(Value key, pick(runtime, items[i], attribute));
    if (!bound.flag(0)) key = fold_case(key);
    if (i > 0) {
      ASSIGN_OR_RETURN(const std::partial_ordering relation, order(runtime, key, best_key));
      if (!(extreme == Extreme::kSmallest ? relation < 0 : relation > 0)) continue;
    }
    best = items[i];
    best_key = std::move(key);
  }
  return best;
}

Result sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"attribute", "start"}));
  ASSIGN_OR_RETURN(const std::string attribute, attribute_of(bound, 0));
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, input));
  Value total = bound.at(1) ? *bound.at(1) : Value(int64_t{0});
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value value, pick(runtime, item, attribute));
    ASSIGN_OR_RETURN(total, arithmetic(runtime, BinaryOp::kAdd, std::move(total), value));
  }
  return total;
}

}  // namespace

Result pick(Runtime& runtime, Value item, const std::string& attribute) {
  if (attribute.empty()) return item;
  for (const std::string_view name : split(attribute, ".", -1, Side::kLeft)) {
    const std::string part(name);
    const bool is_index = all_of_class(part, CharClass::kDigit) && part.size() < 10;
    const Value key = is_index ? Value(int64_t{std::atoi(part.c_str())}) : Value(part);
    ASSIGN_OR_RETURN(item, get_item(runtime, item, key));
  }
  return item;
}

absl::StatusOr<std::string> attribute_of(const Bound& bound, size_t i) {
  if (bound.at(i) && bound.at(i)->get_if<int64_t>()) {
    return std::to_string(*bound.at(i)->get_if<int64_t>());
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> name, bound.optional_text(i));
  return name.value_or("");
}

Result pairs(const Dict& dict, SequenceKind kind) {
  Items items;
  for (const auto& [key, value] : dict.items()) {
    ASSIGN_OR_RETURN(Value pair, Sequence::make(SequenceKind::kTuple, {key, value}));
    items.push_back(std::move(pair));
  }
  return Sequence::make(kind, std::move(items));
}

std::span<const Filter> ordering_filters() {
  static constexpr Filter kFilters[] = {{"dictsort", dictsort},
                                        {"max", pick_extreme<Extreme::kLargest>},
                                        {"min", pick_extreme<Extreme::kSmallest>},
                                        {"sort", sort},
                                        {"sum", sum},
                                        {"unique", unique}};
  return kFilters;
}

}  // namespace pbserve::models::jinja
