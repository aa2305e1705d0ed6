#include "models/chat_template/builtins.h"

#include <algorithm>
#include <span>

#include "models/chat_template/filters.h"
#include "models/chat_template/value_ops.h"

namespace pbserve::models::jinja {

const Filter* find_filter(std::string_view name) {
  for (const std::span<const Filter> table :
       {text_filters(), sequence_filters(), ordering_filters()}) {
    const auto found = std::find_if(table.begin(), table.end(),
                                    [name](const Filter& filter) { return filter.name == name; });
    if (found != table.end()) return &*found;
  }
  return nullptr;
}

absl::StatusOr<Bound> Bound::bind(const Arguments& arguments,
                                  std::initializer_list<std::string_view> names) {
  Bound bound;
  bound.names_.assign(names);
  bound.slots_.resize(names.size());
  if (arguments.positional.size() > names.size()) {
    return render_error("takes at most ", std::to_string(names.size()), " arguments, not ",
                        std::to_string(arguments.positional.size()));
  }
  std::copy(arguments.positional.begin(), arguments.positional.end(), bound.slots_.begin());
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) return render_error("takes no argument '", name, "'");
    std::optional<Value>& slot = bound.slots_[static_cast<size_t>(found - names.begin())];
    if (slot) return render_error("got the argument '", name, "' twice");
    slot = value;
  }
  return bound;
}

bool Bound::flag(size_t i, bool fallback) const { return at(i) ? is_truthy(*at(i)) : fallback; }

absl::StatusOr<int64_t> Bound::integer(size_t i, int64_t fallback) const {
  if (!at(i)) return fallback;
  if (const auto integer = as_integer(*at(i))) return *integer;
  return render_error("the argument '", names_[i], "' is a ", type_name(*at(i)), ", not an int");
}

absl::StatusOr<std::string> Bound::text(size_t i) const {
  if (!at(i)) return render_error("needs the argument '", names_[i], "'");
  if (at(i)->is_undefined()) return undefined_error(*at(i)->get_if<Undefined>());
  if (at(i)->string()) return *at(i)->string();
  return render_error("the argument '", names_[i], "' is a ", type_name(*at(i)), ", not a str");
}

absl::StatusOr<std::optional<std::string>> Bound::optional_text(size_t i) const {
  if (!at(i) || at(i)->is_none()) return std::optional<std::string>();
  ASSIGN_OR_RETURN(std::string given, text(i));
  return std::optional(std::move(given));
}

}  // namespace pbserve::models::jinja
