// Filters of texts and numbers, with the parameters that Jinja and (tojson) transformers give them.

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "models/chat_template/filters.h"
#include "models/chat_template/text.h"
#include "models/chat_template/value_ops.h"
#include "models/chat_template/value_text.h"

namespace pbserve::models::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// A filter that maps str(input) to a text and has no parameters.
template <std::string (*map)(std::string_view)>
Result map_text(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  ASSIGN_OR_RETURN(const MarkedText text, to_text(runtime, input));
  return Value(map_bytes(text, map));
}

Result as_text(Runtime& runtime, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  ASSIGN_OR_RETURN(MarkedText text, to_text(runtime, input));
  return Value(std::move(text));
}

// Unlike str.title(), this begins words behind white space, hyphens and opening brackets alone.
std::string filter_title(std::string_view text) {
  std::string out;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, &pos);
    const bool separates =
        is_space(c) || c == U'-' || c == U'(' || c == U'{' || c == U'[' || c == U'<';
    if (!separates && pos < text.size()) continue;
    out.append(capitalize(text.substr(start, pos - start)));
    start = pos;
  }
  return out;
}

Result trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"chars"}));
  ASSIGN_OR_RETURN(const std::optional<std::string> chars, bound.optional_text(0));
  ASSIGN_OR_RETURN(const MarkedText text, to_text(runtime, input));
  return Value(text.cut(strip(text.bytes(), Side::kBoth, chars)));
}

Result replace(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"old", "new", "count"}));
  ASSIGN_OR_RETURN(const MarkedText text, to_text(runtime, input));
  if (!bound.at(0) || !bound.at(1)) return render_error("needs the arguments 'old' and 'new'");
  ASSIGN_OR_RETURN(const MarkedText from, to_text(runtime, *bound.at(0)));
  ASSIGN_OR_RETURN(const MarkedText to, to_text(runtime, *bound.at(1)));
  ASSIGN_OR_RETURN(const int64_t count, bound.integer(2, -1));
  ASSIGN_OR_RETURN(MarkedText replaced, replace_all(runtime, text, from.bytes(), to, count));
  return Value(std::move(replaced));
}

Result indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"width", "first", "blank"}));
  if (!input.string()) return render_error("indents a str, not a ", type_name(input));
  MarkedText indentation;
  if (bound.at(0) && bound.at(0)->string()) {
    indentation = *bound.at(0)->text();
  } else {
    ASSIGN_OR_RETURN(const int64_t width, bound.integer(0, 4));
    RETURN_IF_ERROR(runtime.charge(static_cast<size_t>(std::max<int64_t>(width, 0))));
    indentation = MarkedText(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  }
  MarkedText out;
  if (bound.flag(1)) out.append(indentation);
  MarkedText text = *input.text();
  text.append("\n");
  const std::vector<std::string_view> lines = split_lines(text.bytes(), /*keep_ends=*/false);
  for (size_t i = 0; i < lines.size(); ++i) {
    RETURN_IF_ERROR(runtime.charge(indentation.size() + lines[i].size() + kStepUnits));
    if (i > 0) out.append("\n");
    if (i > 0 && (bound.flag(2) || !lines[i].empty())) out.append(indentation);
    out.append(text, lines[i]);
  }
  return Value(std::move(out));
}

Result tojson(Runtime& runtime, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound,
                   Bound::bind(arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = bound.flag(0);
  style.sort_keys = bound.flag(3);
  if (const Value* indent = bound.at(1); indent && !indent->is_none()) {
    style.item_separator = std::string(",");
    if (indent->string()) {
      style.indent = *indent->string();
    } else {
      ASSIGN_OR_RETURN(const int64_t width, bound.integer(1, 0));
      RETURN_IF_ERROR(runtime.charge(static_cast<size_t>(std::max<int64_t>(width, 0))));
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (const Value* separators = bound.at(2); separators && !separators->is_none()) {
    const Sequence* pair = separators->sequence();
    if (!pair || pair->items().size() != 2 || !pair->items()[0].string() ||
        !pair->items()[1].string()) {
      return render_error("the argument 'separators' is not a pair of strings");
    }
    style.item_separator = *pair->items()[0].string();
    style.key_separator = *pair->items()[1].string();
  }
  ASSIGN_OR_RETURN(MarkedText json, to_json(runtime, input, style));
  return Value(std::move(json));
}

// A whole text that from_chars accepts, with white space around it and an optional plus sign.
template <class T>
std::optional<T> parse_number(std::string_view text) {
  text = strip(text, Side::kBoth);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && !text.empty() ? std::optional(number) : std::nullopt;
}

std::optional<Value> truncated(double number) {
  if (!(std::abs(number) < 9.2e18)) return std::nullopt;
  return Value(static_cast<int64_t>(number));
}

Result to_int(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"default"}));
  if (input.is_undefined()) return undefined_error(*input.get_if<Undefined>());
  std::optional<Value> result;
  if (const auto integer = as_integer(input)) {
    result = Value(*integer);
  } else if (const auto real = as_double(input)) {
    result = truncated(*real);
  } else if (const std::string* text = input.string()) {
    if (const auto whole = parse_number<int64_t>(*text)) {
      result = Value(*whole);
    } else if (const auto number = parse_number<double>(*text)) {  // "42.23" gives 42
      result = truncated(*number);
    }
  }
  if (result) return *result;
  return bound.at(0) ? *bound.at(0) : Value(int64_t{0});
}

Result to_float(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"default"}));
  if (input.is_undefined()) return undefined_error(*input.get_if<Undefined>());
  std::optional<double> number = as_double(input);
  if (const std::string* text = input.string()) number = parse_number<double>(*text);
  if (number) return Value(*number);
  return bound.at(0) ? *bound.at(0) : Value(0.0);
}

Result absolute(Runtime&, const Value& input, const Arguments& arguments) {
  RETURN_IF_ERROR(Bound::bind(arguments, {}).status());
  const auto number = as_double(input);
  if (number && *number >= 0) return as_integer(input) ? Value(*as_integer(input)) : input;
  return negate(input);
}

Result round(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"precision", "method"}));
  ASSIGN_OR_RETURN(const int64_t precision, bound.integer(0, 0));
  ASSIGN_OR_RETURN(const std::optional<std::string> given, bound.optional_text(1));
  const std::string method = given.value_or("common");
  const auto number = as_double(input);
  if (!number) return render_error("a ", type_name(input), " cannot be rounded");
  if (precision < 0 || precision > 15) return render_error("'precision' is not in [0, 15]");
  if (method == "common") {
    if (const auto integer = as_integer(input)) return Value(*integer);
    char text[400];  // the longest double has 309 digits before the point
    std::snprintf(text, sizeof(text), "%.*f", static_cast<int>(precision), *number);
    return Value(std::strtod(text, nullptr));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value(std::ceil(*number * scale) / scale);
  if (method == "floor") return Value(std::floor(*number * scale) / scale);
  return render_error("'method' is not common, ceil or floor");
}

Result or_default(Runtime&, const Value& input, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound bound, Bound::bind(arguments, {"default_value", "boolean"}));
  if (!input.is_undefined() && !(bound.flag(1) && !is_truthy(input))) return input;
  return bound.at(0) ? *bound.at(0) : Value(std::string());
}

}  // namespace

absl::StatusOr<MarkedText> replace_all(Runtime& runtime, const MarkedText& text,
                                       const std::string& from, const MarkedText& to,
                                       int64_t count_max) {
  if (from.empty()) return render_error("replacing the empty text is not supported");
  const std::string_view bytes = text.bytes();
  MarkedText out;
  size_t start = 0;
  while (count_max-- != 0) {
    const size_t found = bytes.find(from, start);
    if (found == std::string_view::npos) break;
    RETURN_IF_ERROR(runtime.charge(found - start + to.size()));
    out.append(text, bytes.substr(start, found - start));
    out.append(to);
    start = found + from.size();
  }
  RETURN_IF_ERROR(runtime.charge(text.size() - start));
  out.append(text, bytes.substr(start));
  return out;
}

MarkedText map_bytes(const MarkedText& text, std::string (*map)(std::string_view)) {
  const bool by_character = map == to_upper || map == to_lower;
  MarkedText mapped;
  if (by_character) {
    text.visit_parts([&](std::string_view part, bool is_content) {
      const std::string bytes = map(part);
      is_content ? mapped.append(MarkedText::content(bytes)) : mapped.append(bytes);
    });
  } else {
    mapped.append_made_of(text, map(text.bytes()));
  }
  return mapped;
}

std::span<const Filter> text_filters() {
  static constexpr Filter kFilters[] = {{"abs", absolute},
                                        {"capitalize", map_text<capitalize>},
                                        {"d", or_default},
                                        {"default", or_default},
                                        {"float", to_float},
                                        {"indent", indent},
                                        {"int", to_int},
                                        {"lower", map_text<to_lower>},
                                        {"replace", replace},
                                        {"round", round},
                                        // Nothing escapes HTML here, so all text is safe.
                                        {"safe", as_text},
                                        {"string", as_text},
                                        {"title", map_text<filter_title>},
                                        {"tojson", tojson},
                                        {"trim", trim},
                                        {"upper", map_text<to_upper>}};
  return kFilters;
}

}  // namespace pbserve::models::jinja
