// The functions that transformers gives to chat templates, and the few of Jinja's own they use.

#include <algorithm>
#include <ctime>

#include "models/chat_template/builtins.h"
#include "models/chat_template/value_ops.h"
#include "models/chat_template/value_text.h"

namespace pbserve::models::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// Python's calls that take a dict, members by name, or both.
absl::StatusOr<Dict> collect_members(const Arguments& arguments) {
  Dict members;
  if (arguments.positional.size() > 1) return render_error("takes at most one dict");
  if (!arguments.positional.empty()) {
    const Dict* given = arguments.positional[0].dict();
    if (!given) return render_error("takes a dict, not a ", type_name(arguments.positional[0]));
    members = *given;
  }
  for (const auto& [name, value] : arguments.named) members.set(Value(name), value);
  return members;
}

Result make_dict(Runtime& runtime, const Arguments& arguments) {
  ASSIGN_OR_RETURN(Dict members, collect_members(arguments));
  RETURN_IF_ERROR(runtime.charge_items(2 * members.items().size()));
  return Dict::share(std::move(members));
}

Result make_namespace(Runtime& runtime, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Dict members, collect_members(arguments));
  RETURN_IF_ERROR(runtime.charge_items(4 + 2 * members.items().size()));
  Namespace* space = runtime.new_namespace();
  for (const auto& [name, value] : members.items()) space->set(*name.string(), value);
  return Value(space);
}

Result raise_exception(Runtime& runtime, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"message"}));
  if (!bound.at(0)) return render_error("needs a message");
  ASSIGN_OR_RETURN(const MarkedText message, to_text(runtime, *bound.at(0)));
  return runtime.raise(message.bytes());
}

Result range(Runtime& runtime, const Arguments& arguments) {
  if (!arguments.named.empty() || arguments.positional.empty() || arguments.positional.size() > 3) {
    return render_error("takes 1 to 3 integers");
  }
  int64_t given[3] = {0, 0, 0};
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    const auto integer = as_integer(arguments.positional[i]);
    if (!integer) return render_error("a ", type_name(arguments.positional[i]), " is no integer");
    given[i] = *integer;
  }
  const bool has_start = arguments.positional.size() > 1;
  const int64_t stop = has_start ? given[1] : given[0];
  const int64_t step = arguments.positional.size() == 3 ? given[2] : 1;
  if (step == 0) return render_error("the step is zero");
  std::vector<Value> items;
  for (int64_t i = has_start ? given[0] : 0; step > 0 ? i < stop : i > stop;) {
    if (items.size() == kRangeLenMax) {
      return render_error("a range is longer than the limit of ", std::to_string(kRangeLenMax));
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  RETURN_IF_ERROR(runtime.charge_items(items.size()));
  return Sequence::make(SequenceKind::kRange, std::move(items));
}

Result strftime_now(Runtime& runtime, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"format"}));
  ASSIGN_OR_RETURN(const std::string format, bound.text(0));
  const std::time_t clock = runtime.clock();
  std::tm local{};
  localtime_r(&clock, &local);
  char text[512];
  const size_t len = std::strftime(text, sizeof(text), format.c_str(), &local);
  if (len == 0 && !format.empty()) {
    return render_error("the date is empty or longer than the limit of 511 bytes");
  }
  MarkedText date;
  date.append_made_of(*bound.at(0)->text(), std::string_view(text, len));
  return Value(std::move(date));
}

constexpr Function kFunctions[] = {{"dict", make_dict},
                                   {"namespace", make_namespace},
                                   {"raise_exception", raise_exception},
                                   {"range", range},
                                   {"strftime_now", strftime_now}};

}  // namespace

const Function* find_function(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kFunctions), std::end(kFunctions),
                   [name](const Function& function) { return function.name == name; });
  return found == std::end(kFunctions) ? nullptr : found;
}

}  // namespace pbserve::models::jinja
