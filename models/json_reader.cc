#include "models/json_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <functional>
#include <limits>
#include <unordered_set>

#include "models/message.h"

namespace pbserve::models {

using nlohmann::json;

absl::StatusOr<std::string> read_file(const std::string& path, size_t bytes_max) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(message(path, ": no such file"));
  }
  if (!S_ISREG(info.st_mode)) {
    return invalid(path, ": not a regular file");
  }
  if (static_cast<size_t>(info.st_size) > bytes_max) {
    return invalid(path, ": ", info.st_size, " bytes, the limit is ", bytes_max);
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    return absl::UnavailableError(message(path, ": cannot be read"));
  }
  return text;
}

namespace {

// Watches a parse for what the DOM would hide: repeated keys and deep nesting.
class ParseGuard {
 public:
  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    constexpr int kDepthMax = 64;
    if (depth >= kDepthMax) {
      problem_ = "nested deeper than 64 levels";
      return false;
    }
    if (event == json::parse_event_t::object_start) {
      keys_.resize(std::max<size_t>(keys_.size(), static_cast<size_t>(depth) + 2));
      keys_[static_cast<size_t>(depth) + 1].clear();
    }
    if (event == json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys_[static_cast<size_t>(depth)].insert(key).second) {
        problem_ = message("key '", key, "' appears twice");
      }
    }
    return true;
  }

  const std::string& problem() const { return problem_; }

 private:
  std::vector<std::unordered_set<std::string>> keys_;  // by depth of the open object
  std::string problem_;
};

}  // namespace

absl::StatusOr<json> parse_json(std::string_view text, std::string_view what) {
  try {
    ParseGuard guard;
    json value = json::parse(text, std::ref(guard));
    if (guard.problem().empty()) return value;
    return invalid(what, ": ", guard.problem());
  } catch (const json::exception& error) {
    return invalid(what, ": not valid JSON: ", error.what());
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(message(what, ": ", error.what()));
  }
}

JsonReader::JsonReader(const json& object, std::string what)
    : object_(&object), what_(std::move(what)) {
  if (!object.is_object()) {
    status_ = invalid(what_, ": expected a JSON object");
  }
}

const json* JsonReader::find(std::string_view key) {
  asked_.emplace(key);
  if (!object_->is_object()) return nullptr;
  const auto found = object_->find(std::string(key));
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

const json* JsonReader::require(std::string_view key) {
  const json* value = find(key);
  if (value == nullptr) fail(key, "is missing");
  return value;
}

void JsonReader::fail(std::string_view key, std::string_view problem) {
  fail(invalid(what_, ": '", key, "' ", problem));
}

void JsonReader::fail_value(std::string_view key, const json& value, std::string_view expected) {
  constexpr size_t kShown = 60;  // bytes of an offending value in a message
  std::string shown = value.dump(-1, ' ', true);
  if (shown.size() > kShown) shown = shown.substr(0, kShown) + "...";
  fail(key, message("is ", shown, ", expected ", expected));
}

namespace {

std::string range_text(IntRange range) {
  return message("an integer in [", range.min, ", ", range.max, "]");
}

bool in_range(const json& value, IntRange range) {
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return false;
  }
  return value.is_number_integer() && range.min <= value.get<int64_t>() &&
         value.get<int64_t>() <= range.max;
}

}  // namespace

int64_t JsonReader::integer(std::string_view key, IntRange range) {
  return require(key) == nullptr ? range.min : integer_or(key, range, range.min);
}

int64_t JsonReader::integer_or(std::string_view key, IntRange range, int64_t fallback) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (in_range(*value, range)) return value->get<int64_t>();
  fail_value(key, *value, range_text(range));
  return fallback;
}

double JsonReader::number(std::string_view key, FloatRange range) {
  return require(key) == nullptr ? range.min : number_or(key, range, range.min);
}

double JsonReader::number_or(std::string_view key, FloatRange range, double fallback) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (range.min <= number && number <= range.max) return number;
  }
  fail_value(key, *value, message("a number in [", range.min, ", ", range.max, "]"));
  return fallback;
}

bool JsonReader::boolean_or(std::string_view key, bool fallback) {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  fail_value(key, *value, "true or false");
  return fallback;
}

std::string JsonReader::string_or(std::string_view key, std::string_view fallback) {
  const json* value = find(key);
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->get<std::string>();
  fail_value(key, *value, "a string");
  return std::string(fallback);
}

std::vector<int32_t> JsonReader::ids(std::string_view key, size_t count_max) {
  constexpr IntRange kIds{0, std::numeric_limits<int32_t>::max()};
  const json* value = find(key);
  if (value == nullptr) return {};
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > count_max) {
    fail(key, message("has ", list.size(), " entries, the limit is ", count_max));
    return {};
  }
  std::vector<int32_t> ids;
  for (const json& item : list) {
    if (!in_range(item, kIds)) {
      fail_value(key, item, range_text(kIds));
      return {};
    }
    ids.push_back(item.get<int32_t>());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

void JsonReader::ignore(std::span<const std::string_view> keys) {
  for (std::string_view key : keys) asked_.emplace(key);
}

void JsonReader::require_neutral(std::string_view key, const json& neutral) {
  const json* value = find(key);
  if (value == nullptr || *value == neutral) return;
  fail_value(key, *value, message(neutral.dump(), ": the only value supported"));
}

std::vector<std::string> JsonReader::unread_keys() const {
  std::vector<std::string> keys;
  if (!object_->is_object()) return keys;
  for (const auto& [key, value] : object_->items()) {
    if (!value.is_null() && !asked_.contains(key)) keys.push_back(key);
  }
  return keys;
}

}  // namespace pbserve::models
