#include "server/config/config_table.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace pbserve::server {
namespace {

absl::Status wrong(absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("must be ", expected));
}

std::string describe(absl::string_view kind, Range range) {
  const bool has_min = range.min > std::numeric_limits<double>::lowest();
  const bool has_max = range.max < std::numeric_limits<double>::max();
  const auto text = [](double v) {
    return v == std::floor(v) && std::abs(v) < 1e15 ? absl::StrCat(static_cast<int64_t>(v))
                                                    : absl::StrCat(v);
  };
  if (has_min && has_max) {
    return absl::StrCat(kind, " from ", text(range.min), " to ", text(range.max));
  }
  if (has_min) return absl::StrCat(kind, " of at least ", text(range.min));
  if (has_max) return absl::StrCat(kind, " of at most ", text(range.max));
  return std::string(kind);
}

template <class Number>
absl::Status convert_number(const Json& json, Range range, Number* to) {
  constexpr bool kIsInteger = std::is_integral_v<Number>;
  range.min = std::max(range.min, static_cast<double>(std::numeric_limits<Number>::lowest()));
  if (sizeof(Number) < sizeof(int64_t)) {
    range.max = std::min(range.max, static_cast<double>(std::numeric_limits<Number>::max()));
  }
  const bool has_type = kIsInteger ? json.is_number_integer() : json.is_number();
  // 2^63 and more would wrap; every range of ours ends below.
  const bool fits = has_type && std::isfinite(json.get<double>()) &&
                    (!kIsInteger || json.get<double>() < 9.2e18) &&
                    json.get<double>() >= range.min && json.get<double>() <= range.max;
  if (!fits) return wrong(describe(kIsInteger ? "an integer" : "a number", range));
  *to = json.get<Number>();
  return absl::OkStatus();
}

Json shown(double value) { return value; }
Json shown(int64_t value) { return value; }
Json shown(int32_t value) { return value; }
Json shown(float value) { return shortest_decimal(value); }

// "128k" and the like.
std::optional<int64_t> parse_size(const std::string& text) {
  static constexpr std::pair<char, int64_t> kSuffixes[] = {
      {'k', 1000},    {'K', 1LL << 10},          {'m', 1000 * 1000},
      {'M', 1 << 20}, {'g', 1000 * 1000 * 1000}, {'G', 1 << 30}};
  int64_t factor = 1;
  absl::string_view digits = text;
  for (const auto& [suffix, value] : kSuffixes) {
    if (!text.empty() && text.back() == suffix) {
      factor = value;
      digits.remove_suffix(1);
    }
  }
  double count = 0;
  if (!absl::SimpleAtod(digits, &count) || !std::isfinite(count)) return std::nullopt;
  const double product = count * static_cast<double>(factor);
  if (std::abs(product) > 9e18 || product != std::floor(product)) return std::nullopt;
  return static_cast<int64_t>(product);
}

}  // namespace

void ConfigTable::add(std::string path, bool* value) {
  entries_.push_back({.path = std::move(path),
                      .is_text = false,
                      .set =
                          [value](const Json& json) {
                            if (!json.is_boolean()) return wrong("true or false");
                            *value = json.get<bool>();
                            return absl::OkStatus();
                          },
                      .get = [value] { return Json(*value); }});
}

void ConfigTable::add(std::string path, std::string* value) {
  entries_.push_back({.path = std::move(path),
                      .is_text = true,
                      .set =
                          [value](const Json& json) {
                            if (!json.is_string()) return wrong("a string");
                            *value = json.get<std::string>();
                            return absl::OkStatus();
                          },
                      .get = [value] { return Json(*value); }});
}

void ConfigTable::add(std::string path, std::vector<std::string>* value) {
  const auto set = [value](const Json& json) {
    const bool is_list =
        json.is_array() &&
        std::all_of(json.begin(), json.end(), [](const Json& v) { return v.is_string(); });
    if (!is_list) return wrong("an array of strings");
    *value = json.get<std::vector<std::string>>();
    return absl::OkStatus();
  };
  entries_.push_back({.path = std::move(path), .is_text = false, .set = set, .get = [value] {
                        return Json(*value);
                      }});
}

template <class Number>
void ConfigTable::add_number(std::string path, Number* value, Range range) {
  entries_.push_back(
      {.path = std::move(path),
       .is_text = false,
       .set = [value, range](const Json& json) { return convert_number(json, range, value); },
       .get = [value] { return shown(*value); }});
}

void ConfigTable::add(std::string path, int32_t* value, Range range) {
  add_number(std::move(path), value, range);
}

void ConfigTable::add(std::string path, int64_t* value, Range range) {
  add_number(std::move(path), value, range);
}

void ConfigTable::add(std::string path, double* value, Range range) {
  add_number(std::move(path), value, range);
}

void ConfigTable::add(std::string path, float* value, Range range) {
  add_number(std::move(path), value, range);
}

void ConfigTable::add(std::string path, std::optional<float>* value) {
  const auto set = [value](const Json& json) {
    const bool is_auto = json.is_string() && json.get<std::string>() == "auto";
    if (!is_auto && !json.is_number()) return wrong("a number, or auto");
    float number = 0;
    if (!is_auto) RETURN_IF_ERROR(convert_number(json, {}, &number));
    *value = is_auto ? std::nullopt : std::optional(number);
    return absl::OkStatus();
  };
  entries_.push_back({.path = std::move(path), .is_text = false, .set = set, .get = [value] {
                        return value->has_value() ? shown(**value) : Json("auto");
                      }});
}

void ConfigTable::add_json(std::string path, std::string* value) {
  const auto set = [value](const Json& json) {
    if (!json.is_object() && !json.is_string()) return wrong("a JSON object, or one as a string");
    *value = json.is_object() ? dump_json(json) : json.get<std::string>();
    return absl::OkStatus();
  };
  entries_.push_back({.path = std::move(path), .is_text = true, .set = set, .get = [value] {
                        return Json(*value);
                      }});
}

void ConfigTable::add_size(std::string path, int64_t* value, Range range) {
  add_size_entry(std::move(path), value, range, Auto::kNo);
}

void ConfigTable::add_auto_size(std::string path, int64_t* value) {
  add_size_entry(std::move(path), value, {}, Auto::kIsZero);
}

void ConfigTable::add_size_entry(std::string path, int64_t* value, Range range, Auto automatic) {
  const bool has_auto = automatic == Auto::kIsZero;
  const auto set = [value, range, has_auto](const Json& json) {
    if (!json.is_string()) return convert_number(json, range, value);
    const std::string& text = json.get_ref<const std::string&>();
    const std::optional<int64_t> size = has_auto && text == "auto" ? 0 : parse_size(text);
    if (!size) {
      return wrong(absl::StrCat("an integer, or one with a suffix k, K, m, M, g or G",
                                has_auto ? ", or auto" : ""));
    }
    return convert_number(Json(*size), range, value);
  };
  const auto get = [value, has_auto] {
    return has_auto && *value == 0 ? Json("auto") : Json(*value);
  };
  entries_.push_back({.path = std::move(path), .is_text = false, .set = set, .get = get});
}

void ConfigTable::add_names(std::string path, std::vector<std::string> names,
                            std::function<void(size_t)> choose, std::function<size_t()> chosen) {
  const auto set = [names, choose = std::move(choose)](const Json& json) {
    const auto found = json.is_string()
                           ? std::find(names.begin(), names.end(), json.get<std::string>())
                           : names.end();
    if (found == names.end()) return wrong(absl::StrCat("one of ", absl::StrJoin(names, ", ")));
    choose(static_cast<size_t>(found - names.begin()));
    return absl::OkStatus();
  };
  const auto get = [names, chosen = std::move(chosen)] { return Json(names[chosen()]); };
  entries_.push_back({.path = std::move(path), .is_text = true, .set = set, .get = get});
}

void ConfigTable::add_former(std::string path, std::string successor) {
  former_.emplace_back(std::move(path), std::move(successor));
}

const ConfigTable::Entry* ConfigTable::find(absl::string_view path) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [path](const Entry& entry) { return entry.path == path; });
  return found == entries_.end() ? nullptr : &*found;
}

absl::Status ConfigTable::set(absl::string_view path, const Json& value) {
  const Entry* entry = find(path);
  if (entry == nullptr) {
    for (const auto& [former, successor] : former_) {
      if (former != path) continue;
      return absl::InvalidArgumentError(absl::StrCat(path, " is now ", successor));
    }
    return absl::InvalidArgumentError(absl::StrCat("the config has no key '", path, "'"));
  }
  if (absl::Status status = entry->set(value); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " = ", dump_json(value), ": ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status ConfigTable::set_text(absl::string_view path, const std::string& text) {
  const Entry* entry = find(path);
  if (entry != nullptr && entry->is_text) return set(path, Json(text));
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (is_section(path)) {
    if (value.is_object()) return set_below(absl::StrCat(path, "."), value);
    return absl::InvalidArgumentError(absl::StrCat(path, " = ", text, ": must be a JSON object"));
  }
  return set(path, value.is_discarded() ? Json(text) : value);
}

bool ConfigTable::is_section(absl::string_view path) const {
  const std::string prefix = absl::StrCat(path, ".");
  return std::any_of(entries_.begin(), entries_.end(), [&prefix](const Entry& entry) {
    return absl::StartsWith(entry.path, prefix);
  });
}

absl::Status ConfigTable::set_all(const Json& object) { return set_below("", object); }

absl::Status ConfigTable::set_below(const std::string& prefix, const Json& object) {
  for (const auto& [name, value] : object.items()) {
    const std::string path = prefix + name;
    if (is_section(path) && value.is_object()) {
      RETURN_IF_ERROR(set_below(path + ".", value));
    } else {
      RETURN_IF_ERROR(set(path, value));
    }
  }
  return absl::OkStatus();
}

Json ConfigTable::dump() const {
  Json all = Json::object();
  for (const Entry& entry : entries_) {
    Json* at = &all;
    for (const absl::string_view name : absl::StrSplit(entry.path, '.')) {
      at = &(*at)[std::string(name)];
    }
    *at = entry.get();
  }
  return all;
}

}  // namespace pbserve::server
