// The methods of Python's strings, dicts and lists that change nothing, and loop.cycle().

#include <algorithm>

#include "models/chat_template/builtins.h"
#include "models/chat_template/filters.h"
#include "models/chat_template/loop.h"
#include "models/chat_template/text.h"
#include "models/chat_template/value_ops.h"

namespace pbserve::models::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Text = std::optional<std::string>;

template <std::string (*map)(std::string_view)>
Result map_text(Runtime& runtime, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  return Value(map_bytes(*self.text(), map));
}

template <bool (*holds)(std::string_view)>
Result test_text(Runtime& runtime, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  return Value(holds(*self.string()));
}

template <CharClass wanted>
bool all_are(std::string_view text) {
  return all_of_class(text, wanted);
}

template <Side side>
Result strip_side(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"chars"}));
  ASSIGN_OR_RETURN(const Text chars, bound.optional_text(0));
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  return Value(self.text()->cut(strip(*self.string(), side, chars)));
}

// The parts of a text, as texts of their own.
Result list_of(Runtime& runtime, const MarkedText& text,
               const std::vector<std::string_view>& parts) {
  RETURN_IF_ERROR(runtime.charge_items(parts.size()));
  Items items;
  for (const std::string_view part : parts) items.emplace_back(text.cut(part));
  return Sequence::make(SequenceKind::kList, std::move(items));
}

template <Side side>
Result split_from(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"sep", "maxsplit"}));
  ASSIGN_OR_RETURN(const Text separator, bound.optional_text(0));
  ASSIGN_OR_RETURN(const int64_t splits_max, bound.integer(1, -1));
  if (separator && separator->empty()) return render_error("the separator is empty");
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  return list_of(runtime, *self.text(), split(*self.string(), separator, splits_max, side));
}

Result splitlines(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"keepends"}));
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  return list_of(runtime, *self.text(), split_lines(*self.string(), bound.flag(0)));
}

// startswith and endswith take one text or a tuple of them.
template <Side side>
Result has_affix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"affix"}));
  Items affixes;
  const Sequence* tuple = bound.at(0) ? bound.at(0)->sequence() : nullptr;
  if (tuple && tuple->kind() == SequenceKind::kTuple) {
    ASSIGN_OR_RETURN(affixes, iterate(runtime, *bound.at(0)));
  } else {
    ASSIGN_OR_RETURN(const std::string affix, bound.text(0));
    affixes.emplace_back(affix);
  }
  for (const Value& affix : affixes) {
    if (!affix.string()) return render_error("a ", type_name(affix), " is no str to look for");
    RETURN_IF_ERROR(runtime.charge(affix.string()->size()));
    const std::string_view text = *self.string();
    if (side == Side::kLeft ? text.starts_with(*affix.string()) : text.ends_with(*affix.string())) {
      return Value(true);
    }
  }
  return Value(false);
}

template <Side side>
Result remove_affix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"affix"}));
  ASSIGN_OR_RETURN(const std::string affix, bound.text(0));
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  std::string_view text = *self.string();
  if (side == Side::kLeft && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (side == Side::kRight && text.ends_with(affix)) text.remove_suffix(affix.size());
  return Value(self.text()->cut(text));
}

Result replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"old", "new", "count"}));
  ASSIGN_OR_RETURN(const std::string from, bound.text(0));
  RETURN_IF_ERROR(bound.text(1).status());
  ASSIGN_OR_RETURN(const int64_t count, bound.integer(2, -1));
  ASSIGN_OR_RETURN(MarkedText text,
                   replace_all(runtime, *self.text(), from, *bound.at(1)->text(), count));
  return Value(std::move(text));
}

Result join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"items"}));
  if (!bound.at(0)) return render_error("needs the items to join");
  ASSIGN_OR_RETURN(const Items items, iterate(runtime, *bound.at(0)));
  MarkedText text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].string()) return render_error("joins strings alone");
    RETURN_IF_ERROR(runtime.charge(self.string()->size() + items[i].string()->size()));
    if (i > 0) text.append(*self.text());
    text.append(*items[i].text());
  }
  return Value(std::move(text));
}

// The position of a part, counted in code points; -1 if it is not there.
template <Side side>
Result find(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"sub"}));
  ASSIGN_OR_RETURN(const std::string part, bound.text(0));
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  const std::string_view text = *self.string();
  const size_t at = side == Side::kLeft ? text.find(part) : text.rfind(part);
  if (at == std::string_view::npos) return Value(int64_t{-1});
  return Value(static_cast<int64_t>(count_code_points(text.substr(0, at))));
}

Result count_text(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"sub"}));
  ASSIGN_OR_RETURN(const std::string part, bound.text(0));
  if (part.empty()) return render_error("counting the empty text is not supported");
  RETURN_IF_ERROR(runtime.charge(self.string()->size()));
  int64_t count = 0;
  for (size_t at = self.string()->find(part); at != std::string::npos;
       at = self.string()->find(part, at + part.size())) {
    ++count;
  }
  return Value(count);
}

template <SequenceKind kind>
Result view(Runtime& runtime, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  RETURN_IF_ERROR(runtime.charge_items(2 * self.dict()->items().size()));
  if (kind == SequenceKind::kItems) return pairs(*self.dict(), kind);
  Items items;
  for (const auto& [key, value] : self.dict()->items()) {
    items.push_back(kind == SequenceKind::kKeys ? key : value);
  }
  return Sequence::make(kind, std::move(items));
}

Result get(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"key", "default"}));
  if (!bound.at(0)) return render_error("needs a key");
  const std::string* key = bound.at(0)->string();
  const Value* found = key ? self.dict()->find(*key) : nullptr;
  if (found) return *found;
  return bound.at(1) ? *bound.at(1) : Value(None{});
}

// Nothing can change a value, so a copy of it is the value.
Result copy(Runtime&, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  return self;
}

Result count_items(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"item"}));
  if (!bound.at(0)) return render_error("needs an item");
  int64_t count = 0;
  for (const Value& item : self.sequence()->items()) {
    ASSIGN_OR_RETURN(const bool same, equal(runtime, item, *bound.at(0)));
    count += same ? 1 : 0;
  }
  return Value(count);
}

Result index_of(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"item"}));
  if (!bound.at(0)) return render_error("needs an item");
  const Items& items = self.sequence()->items();
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const bool same, equal(runtime, items[i], *bound.at(0)));
    if (same) return Value(static_cast<int64_t>(i));
  }
  return render_error("the item is not in the list");
}

Result cycle(Runtime&, const Value& self, const Arguments& arguments) {
  const Items& items = arguments.positional;
  if (items.empty() || !arguments.named.empty()) return render_error("needs items to cycle");
  const int64_t index = (*self.get_if<std::shared_ptr<Loop>>())->index0();
  return items[static_cast<size_t>(index) % items.size()];
}

constexpr Method kMethods[] = {
    {Receiver::kString, "capitalize", map_text<capitalize>},
    {Receiver::kString, "count", count_text},
    {Receiver::kString, "endswith", has_affix<Side::kRight>},
    {Receiver::kString, "find", find<Side::kLeft>},
    {Receiver::kString, "isalnum", test_text<all_are<CharClass::kAlnum>>},
    {Receiver::kString, "isalpha", test_text<all_are<CharClass::kAlpha>>},
    {Receiver::kString, "isdigit", test_text<all_are<CharClass::kDigit>>},
    {Receiver::kString, "islower", test_text<is_lower>},
    {Receiver::kString, "isspace", test_text<all_are<CharClass::kSpace>>},
    {Receiver::kString, "isupper", test_text<is_upper>},
    {Receiver::kString, "join", join},
    {Receiver::kString, "lower", map_text<to_lower>},
    {Receiver::kString, "lstrip", strip_side<Side::kLeft>},
    {Receiver::kString, "removeprefix", remove_affix<Side::kLeft>},
    {Receiver::kString, "removesuffix", remove_affix<Side::kRight>},
    {Receiver::kString, "replace", replace},
    {Receiver::kString, "rfind", find<Side::kRight>},
    {Receiver::kString, "rsplit", split_from<Side::kRight>},
    {Receiver::kString, "rstrip", strip_side<Side::kRight>},
    {Receiver::kString, "split", split_from<Side::kLeft>},
    {Receiver::kString, "splitlines", splitlines},
    {Receiver::kString, "startswith", has_affix<Side::kLeft>},
    {Receiver::kString, "strip", strip_side<Side::kBoth>},
    {Receiver::kString, "title", map_text<title_case>},
    {Receiver::kString, "upper", map_text<to_upper>},
    {Receiver::kDict, "copy", copy},
    {Receiver::kDict, "get", get},
    {Receiver::kDict, "items", view<SequenceKind::kItems>},
    {Receiver::kDict, "keys", view<SequenceKind::kKeys>},
    {Receiver::kDict, "values", view<SequenceKind::kValues>},
    {Receiver::kList, "copy", copy},
    {Receiver::kList, "count", count_items},
    {Receiver::kList, "index", index_of},
    {Receiver::kLoop, "cycle", cycle}};

constexpr std::string_view kListMutators[] = {"append", "clear",  "extend",  "insert",
                                              "pop",    "remove", "reverse", "sort"};
constexpr std::string_view kDictMutators[] = {"clear", "pop", "popitem", "setdefault", "update"};

bool is_list(const Value& value) {
  return value.sequence() && value.sequence()->kind() == SequenceKind::kList;
}

std::optional<Receiver> receiver_of(const Value& value) {
  if (value.string()) return Receiver::kString;
  if (value.dict()) return Receiver::kDict;
  if (is_list(value)) return Receiver::kList;
  if (value.sequence() && value.sequence()->kind() == SequenceKind::kTuple) return Receiver::kList;
  if (value.get_if<std::shared_ptr<Loop>>()) return Receiver::kLoop;
  return std::nullopt;
}

template <size_t n>
bool holds(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace

const Method* find_method(const Value& self, std::string_view name) {
  const std::optional<Receiver> receiver = receiver_of(self);
  const auto* found = std::find_if(
      std::begin(kMethods), std::end(kMethods),
      [&](const Method& method) { return receiver == method.receiver && method.name == name; });
  return found == std::end(kMethods) ? nullptr : found;
}

bool is_method_name(std::string_view name) {
  return std::any_of(std::begin(kMethods), std::end(kMethods),
                     [name](const Method& method) { return method.name == name; });
}

bool is_mutator(const Value& self, std::string_view name) {
  return (is_list(self) && holds(kListMutators, name)) ||
         (self.dict() && holds(kDictMutators, name));
}

bool is_mutator_name(std::string_view name) {
  return holds(kListMutators, name) || holds(kDictMutators, name);
}

}  // namespace pbserve::models::jinja
