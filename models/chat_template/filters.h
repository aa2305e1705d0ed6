// The tables of filters, by what they work on.
#pragma once

#include <span>

#include "models/chat_template/builtins.h"

namespace pbserve::models::jinja {

using Items = std::vector<Value>;

std::span<const Filter> text_filters();      // texts and numbers
std::span<const Filter> sequence_filters();  // lists, dicts and what else has items
std::span<const Filter> ordering_filters();  // those that compare items

// What `attribute` names in an item: "function.name" or "0.id"; if it is empty the item itself.
absl::StatusOr<Value> pick(Runtime& runtime, Value item, const std::string& attribute);
// The argument that names an attribute, or the index of a list's item; empty if not given.
absl::StatusOr<std::string> attribute_of(const Bound& bound, size_t i);
// The (key, value) tuples of a dict.
absl::StatusOr<Value> pairs(const Dict& dict, SequenceKind kind);

// The first `count_max` occurrences replaced, or all of them if it is negative.
absl::StatusOr<MarkedText> replace_all(Runtime& runtime, const MarkedText& text,
                                       const std::string& from, const MarkedText& to,
                                       int64_t count_max);

// map(text). Of a text that is content in part, to_upper and to_lower keep the parts apart; what
// other maps make, which look beyond one character, is content as a whole.
MarkedText map_bytes(const MarkedText& text, std::string (*map)(std::string_view));

}  // namespace pbserve::models::jinja
