#include "server/json/field_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

constexpr size_t kShownNameBytes = 200;

// Numbers as they are; of texts, and of what may hold them, the kind: errors are logged, and
// prompts must not be.
std::string shown(const Json& value) {
  if (value.is_string()) return "a string";
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  return value.dump();
}

absl::Status wrong(absl::string_view expected, const Json& value) {
  return absl::InvalidArgumentError(absl::StrCat("must be ", expected, ", not ", shown(value)));
}

absl::Status convert(const Json& value, bool* to) {
  if (!value.is_boolean()) return wrong("true or false", value);
  *to = value.get<bool>();
  return absl::OkStatus();
}

absl::Status convert(const Json& value, std::string* to) {
  if (!value.is_string()) return wrong("a string", value);
  *to = value.get_ref<const std::string&>();
  return absl::OkStatus();
}

absl::Status convert(const Json& value, float* to) {
  if (!value.is_number()) return wrong("a number", value);
  const double number = value.get<double>();
  if (!std::isfinite(number) || std::abs(number) > std::numeric_limits<float>::max()) {
    return wrong("a number within the range of float32", value);
  }
  *to = static_cast<float>(number);
  return absl::OkStatus();
}

// 2.0 as 2, where a double is exact; anything else as it is.
Json without_zero_fraction(const Json& value) {
  constexpr double kExactMax = 1LL << 53;
  if (!value.is_number_float()) return value;
  const double number = value.get<double>();
  if (std::trunc(number) != number || std::abs(number) > kExactMax) return value;
  return static_cast<int64_t>(number);
}

template <class Int>
absl::Status convert_int(const Json& given, Int* to) {
  if (!given.is_number()) return wrong("an integer", given);
  const Json value = without_zero_fraction(given);
  if (!value.is_number_integer()) return wrong("an integer", value);
  const bool is_huge =
      value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<Int>::max());
  if (is_huge || value.get<int64_t>() < std::numeric_limits<Int>::min()) {
    return wrong(absl::StrCat("an integer from ", std::numeric_limits<Int>::min(), " to ",
                              std::numeric_limits<Int>::max()),
                 value);
  }
  *to = static_cast<Int>(value.get<int64_t>());
  return absl::OkStatus();
}

absl::Status convert(const Json& value, int32_t* to) { return convert_int(value, to); }
absl::Status convert(const Json& value, int64_t* to) { return convert_int(value, to); }

template <class T>
absl::Status convert(const Json& value, std::optional<T>* to) {
  T inner{};
  RETURN_IF_ERROR(convert(value, &inner));
  *to = inner;
  return absl::OkStatus();
}

absl::Status convert(const Json& value, std::vector<int32_t>* to) {
  if (!value.is_array()) return wrong("an array of token ids", value);
  to->clear();
  to->reserve(value.size());
  for (const Json& item : value) {
    int32_t id = 0;
    if (absl::Status status = convert_int(item, &id); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("element ", to->size(), " ", status.message()));
    }
    to->push_back(id);
  }
  return absl::OkStatus();
}

}  // namespace

FieldReader::FieldReader(const Json& object, std::string prefix)
    : object_(object), prefix_(std::move(prefix)) {}

const Json* FieldReader::find(absl::string_view name) {
  accept(name);
  if (!ok()) return nullptr;
  const auto found = object_.find(std::string(name));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

template <class T>
void FieldReader::read_as(absl::string_view name, T* to) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (absl::Status status = convert(*value, to); !status.ok()) fail(name, status.message());
}

void FieldReader::read(absl::string_view name, bool* to) { read_as(name, to); }
void FieldReader::read(absl::string_view name, std::string* to) { read_as(name, to); }
void FieldReader::read(absl::string_view name, float* to) { read_as(name, to); }
void FieldReader::read(absl::string_view name, int64_t* to) { read_as(name, to); }
void FieldReader::read(absl::string_view name, std::optional<float>* to) { read_as(name, to); }
void FieldReader::read(absl::string_view name, std::optional<int32_t>* to) { read_as(name, to); }
void FieldReader::read(absl::string_view name, std::optional<int64_t>* to) { read_as(name, to); }
void FieldReader::read(absl::string_view name, std::vector<int32_t>* to) { read_as(name, to); }

void FieldReader::convert_ids(absl::string_view name, const Json& value, std::vector<int32_t>* to) {
  if (absl::Status status = convert(value, to); !status.ok()) fail(name, status.message());
}

void FieldReader::read_seed(absl::string_view name, std::optional<uint64_t>* to) {
  const Json* given = find(name);
  if (given == nullptr) return;
  const Json value = given->is_number() ? without_zero_fraction(*given) : nullptr;
  if (!value.is_number_integer()) {
    fail(name, wrong("an integer of 64 bits", *given).message());
    return;
  }
  *to = value.get<uint64_t>();
}

void FieldReader::read_strings(absl::string_view name, std::vector<std::string>* to) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (value->is_string()) {
    *to = {value->get_ref<const std::string&>()};
    return;
  }
  const bool is_list =
      value->is_array() &&
      std::all_of(value->begin(), value->end(), [](const Json& v) { return v.is_string(); });
  if (!is_list) {
    fail(name, wrong("a string or an array of strings", *value).message());
    return;
  }
  *to = value->get<std::vector<std::string>>();
}

void FieldReader::fail(absl::string_view name, absl::string_view message) {
  if (!ok()) return;
  const std::string path = absl::StrCat(prefix_, name);
  status_ = invalid_field(path, absl::StrCat(path, " ", message));
}

void FieldReader::append_known(std::vector<std::string>* names) const {
  for (const std::string& name : known_) names->push_back(prefix_ + name);
}

absl::Status FieldReader::check_no_unknown() const {
  for (const auto& [name, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
      const std::string path = prefix_ + name.substr(0, kShownNameBytes);
      return invalid_field(path, absl::StrCat(path, " is unknown (the server runs strict)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace pbserve::server
