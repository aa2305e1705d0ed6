#include "models/chat_template/value.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "models/chat_template/limits.h"

namespace pbserve::models::jinja {
namespace {

constexpr size_t kIndexedFrom = 16;  // below, comparing a few keys costs less than hashing

int nesting_of(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->nesting();
  if (const Dict* dict = value.dict()) return dict->nesting();
  return 0;
}

absl::Status check_nesting(int nesting) {
  if (nesting <= kValueNestingMax) return absl::OkStatus();
  return render_error("lists and dicts are nested deeper than the limit of ",
                      std::to_string(kValueNestingMax));
}

}  // namespace

Value Value::undefined(std::string why) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(why))});
}

MarkedText* Value::unshared_text() {
  auto* pointer = std::get_if<std::shared_ptr<MarkedText>>(&data_);
  return pointer && pointer->use_count() == 1 ? pointer->get() : nullptr;
}

absl::StatusOr<Value> Sequence::make(SequenceKind kind, std::vector<Value> items) {
  int nesting = 1;
  for (const Value& item : items) nesting = std::max(nesting, nesting_of(item) + 1);
  RETURN_IF_ERROR(check_nesting(nesting));
  return Value(std::make_shared<const Sequence>(kind, std::move(items), nesting));
}

size_t Dict::position(std::string_view key) const {
  if (items_.size() < kIndexedFrom) {
    const auto found = std::find_if(items_.begin(), items_.end(), [key](const Item& item) {
      return *item.first.string() == key;
    });
    return static_cast<size_t>(found - items_.begin());
  }
  const auto found = index_.find(key);
  return found == index_.end() ? items_.size() : found->second;
}

void Dict::set(Value key, Value value) {
  check(key.string() != nullptr, "dict key is not a string");
  nesting_ = std::max(nesting_, nesting_of(value) + 1);
  const size_t at = position(*key.string());
  if (at < items_.size()) {
    items_[at].second = std::move(value);
    return;
  }
  items_.emplace_back(std::move(key), std::move(value));
  if (items_.size() < kIndexedFrom) return;
  for (size_t i = index_.size(); i < items_.size(); ++i) {
    index_.emplace(*items_[i].first.string(), i);
  }
}

const Value* Dict::find(std::string_view key) const {
  const size_t at = position(key);
  return at < items_.size() ? &items_[at].second : nullptr;
}

absl::StatusOr<Value> Dict::share(Dict dict) {
  RETURN_IF_ERROR(check_nesting(dict.nesting_));
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

const Value* Namespace::find(const std::string& name) const {
  const auto found = members_.find(name);
  return found == members_.end() ? nullptr : &found->second;
}

std::string_view type_name(const Value& value) {
  if (const Sequence* sequence = value.sequence()) {
    switch (sequence->kind()) {
      case SequenceKind::kList:
        return "list";
      case SequenceKind::kTuple:
        return "tuple";
      case SequenceKind::kRange:
        return "range";
      case SequenceKind::kKeys:
        return "dict_keys";
      case SequenceKind::kValues:
        return "dict_values";
      case SequenceKind::kItems:
        return "dict_items";
      case SequenceKind::kIterator:
        return "generator";
    }
  }
  // In the order of Value::Data.
  static constexpr std::string_view kNames[] = {
      "Undefined", "NoneType", "bool",   "int",       "float", "str",     "",
      "dict",      "loop",     "method", "Namespace", "macro", "function"};
  return kNames[value.data().index()];
}

std::optional<int64_t> as_integer(const Value& value) {
  if (const bool* flag = value.get_if<bool>()) return *flag ? 1 : 0;
  if (const int64_t* integer = value.get_if<int64_t>()) return *integer;
  return std::nullopt;
}

std::optional<double> as_double(const Value& value) {
  if (const double* number = value.get_if<double>()) return *number;
  const auto integer = as_integer(value);
  return integer ? std::optional(static_cast<double>(*integer)) : std::nullopt;
}

}  // namespace pbserve::models::jinja
