// Reads the fields of one JSON object with exact types: no string for a number; null means absent,
// and 2.0 is an integer, as in JSON Schema. The first error is kept and named; later reads do
// nothing.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"
#include "server/json/body.h"

namespace pbserve::server {

class FieldReader {
 public:
  // REQUIRES: `object` is an object and outlives the reader. `prefix` precedes names in errors.
  explicit FieldReader(const Json& object, std::string prefix = "");

  // Absent or null leaves the destination as it is.
  void read(absl::string_view name, bool* to);
  void read(absl::string_view name, std::string* to);
  void read(absl::string_view name, float* to);
  void read(absl::string_view name, int64_t* to);
  void read(absl::string_view name, std::optional<float>* to);
  void read(absl::string_view name, std::optional<int32_t>* to);
  void read(absl::string_view name, std::optional<int64_t>* to);
  // A seed: any 64-bit integer, negative ones by their bits.
  void read_seed(absl::string_view name, std::optional<uint64_t>* to);
  void read(absl::string_view name, std::vector<int32_t>* to);
  // One string or an array of strings.
  void read_strings(absl::string_view name, std::vector<std::string>* to);

  // The raw value and true type check by the caller; null pointer where absent or null.
  const Json* find(absl::string_view name);
  // Says that a field is known though nothing is read from it.
  void accept(absl::string_view name) { known_.emplace_back(name); }

  // `value` stands for the field `name`.
  void convert_ids(absl::string_view name, const Json& value, std::vector<int32_t>* to);

  void fail(absl::string_view name, absl::string_view message);
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  // The names, with their prefix, of all fields that somebody asked for.
  void append_known(std::vector<std::string>* names) const;
  // An error naming the first field that nobody asked for.
  absl::Status check_no_unknown() const;

 private:
  template <class T>
  void read_as(absl::string_view name, T* to);

  const Json& object_;
  std::string prefix_;
  std::vector<std::string> known_;
  absl::Status status_;
};

}  // namespace pbserve::server
