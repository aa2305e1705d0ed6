// The table behind the config file: each key's path, how its value is checked and set, and how it
// is shown. A key exists if and only if it stands in the table.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"
#include "server/json/body.h"

namespace pbserve::server {

// A closed interval that a number must lie in; half open where one end is left out.
struct Range {
  double min = std::numeric_limits<double>::lowest();
  double max = std::numeric_limits<double>::max();
};

class ConfigTable {
 public:
  // Each binds `path` to a variable that must outlive the table.
  void add(std::string path, bool* value);
  void add(std::string path, std::string* value);
  void add(std::string path, std::vector<std::string>* value);
  void add(std::string path, int32_t* value, Range range = {});
  void add(std::string path, int64_t* value, Range range = {});
  void add(std::string path, double* value, Range range = {});
  void add(std::string path, float* value, Range range = {});
  void add(std::string path, std::optional<float>* value);  // "auto" where there is none
  // A count that may also be written "128k" (thousands), "128K" (times 1,024), "m", "M", "g", "G".
  void add_size(std::string path, int64_t* value, Range range = {});
  // One whose 0 is written and shown "auto".
  void add_auto_size(std::string path, int64_t* value);
  // A key of former versions: an error that names its successor.
  void add_former(std::string path, std::string successor);
  // A JSON object kept as text: an object in the file, its text in a flag.
  void add_json(std::string path, std::string* value);
  // One of a few names. Enum is an enumeration, or an optional one, whose values stand in `names`.
  template <class Enum>
  void add_enum(std::string path, Enum* value, std::vector<std::pair<std::string, Enum>> names);

  // Errors name the path, the value and what is allowed.
  absl::Status set(absl::string_view path, const Json& value);
  // The value as a flag's text: JSON where it parses as JSON of the right type, else a string. Of a
  // section it is a JSON object of what is to be set there.
  absl::Status set_text(absl::string_view path, const std::string& text);
  // All keys of a nested object.
  absl::Status set_all(const Json& object);
  // The nested object of all values.
  Json dump() const;

 private:
  struct Entry {
    std::string path;
    bool is_text;  // a flag's text is the value as it stands
    std::function<absl::Status(const Json&)> set;
    std::function<Json()> get;
  };

  enum class Auto { kNo, kIsZero };
  void add_size_entry(std::string path, int64_t* value, Range range, Auto automatic);
  template <class Number>
  void add_number(std::string path, Number* value, Range range);
  bool is_section(absl::string_view path) const;
  absl::Status set_below(const std::string& prefix, const Json& object);
  const Entry* find(absl::string_view path) const;
  void add_names(std::string path, std::vector<std::string> names,
                 std::function<void(size_t)> choose, std::function<size_t()> chosen);

  std::vector<Entry> entries_;
  std::vector<std::pair<std::string, std::string>> former_;
};

template <class Enum>
void ConfigTable::add_enum(std::string path, Enum* value,
                           std::vector<std::pair<std::string, Enum>> names) {
  std::vector<std::string> texts;
  std::vector<Enum> values;
  for (auto& [text, item] : names) {
    texts.push_back(std::move(text));
    values.push_back(item);
  }
  add_names(
      std::move(path), std::move(texts), [value, values](size_t i) { *value = values[i]; },
      [value, values] {
        size_t i = 0;
        while (i + 1 < values.size() && values[i] != *value) ++i;
        return i;
      });
}

}  // namespace pbserve::server
