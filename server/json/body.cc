#include "server/json/body.h"

#include <algorithm>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/json/builder.h"

namespace pbserve::server {
namespace {

// The index after the string that opens at `begin`, or the text's length if it never closes.
size_t skip_string(absl::string_view text, size_t begin) {
  size_t at = begin + 1;
  while (at < text.size()) {
    const size_t stop = text.find_first_of("\"\\", at);
    if (stop == absl::string_view::npos) return text.size();
    if (text[stop] == '"') return stop + 1;
    at = stop + 2;
  }
  return text.size();
}

absl::Status too_many(absl::string_view what, int64_t limit, size_t at) {
  return absl::InvalidArgumentError(
      absl::StrCat("the JSON body has more than ", limit, " ", what, " (at byte ", at, ")"));
}

absl::Status invalid_json(absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("the body is not valid JSON: ", problem));
}

}  // namespace

absl::Status check_json_limits(absl::string_view text, const JsonLimits& limits) {
  struct Level {
    bool is_object;
    int64_t num_members;
  };
  std::vector<Level> levels;
  int64_t num_values = 1;
  for (size_t at = 0; at < text.size(); ++at) {
    switch (text[at]) {
      case '"':
        at = skip_string(text, at) - 1;
        break;
      case '[':
      case '{':
        if (std::ssize(levels) == limits.max_depth) {
          return too_many("levels", limits.max_depth, at);
        }
        levels.push_back({.is_object = text[at] == '{', .num_members = 1});
        ++num_values;
        break;
      case ']':
      case '}':
        if (!levels.empty()) levels.pop_back();
        break;
      case ',':
        ++num_values;
        if (!levels.empty() && ++levels.back().num_members > limits.max_object_members &&
            levels.back().is_object) {
          return too_many("members in one object", limits.max_object_members, at);
        }
        break;
      default:
        break;
    }
    if (num_values > limits.max_values) return too_many("values", limits.max_values, at);
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> parse_json(absl::string_view text, const JsonLimits& limits) {
  RETURN_IF_ERROR(check_json_limits(text, limits));
  JsonBuilder builder;
  try {
    if (Json::sax_parse(text.begin(), text.end(), &builder)) return builder.take();
    return invalid_json(builder.problem());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  }
}

absl::StatusOr<Json> parse_json_object(absl::string_view text, const JsonLimits& limits) {
  absl::StatusOr<Json> value = parse_json(text, limits);
  if (!value.ok() || value->is_object()) return value;
  const std::string kind = value->type_name();
  release_json(&*value);
  return absl::InvalidArgumentError(absl::StrCat("the body must be a JSON object, not ", kind));
}

void release_json(Json* value) {
  if (value->is_array()) {
    auto& items = value->get_ref<Json::array_t&>();
    for (Json& item : items) release_json(&item);
    items.clear();
  } else if (value->is_object()) {
    auto& members = value->get_ref<Json::object_t&>();
    for (auto& [name, member] : members) release_json(&member);
    members.clear();
  }
  *value = nullptr;
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

double shortest_decimal(float value) {
  double shortest = value;
  return absl::SimpleAtod(absl::StrCat(value), &shortest) ? shortest : value;
}

}  // namespace pbserve::server
