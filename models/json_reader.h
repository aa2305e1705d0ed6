// Strict, bounded reading of the JSON files of a model folder. JsonReader reads one object key by
// key, keeps the first error, and remembers what was asked for, so that a key nobody asked for can
// be refused. null counts as absent.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace pbserve::models {

// The bytes of a regular file of at most `bytes_max`; errors name the path.
absl::StatusOr<std::string> read_file(const std::string& path, size_t bytes_max);

// No comments, no duplicate keys, no NaN, valid UTF-8, at most 64 levels. `what` names the text.
absl::StatusOr<nlohmann::json> parse_json(std::string_view text, std::string_view what);

// Both ends belong to the range.
struct IntRange {
  int64_t min;
  int64_t max;
};
struct FloatRange {
  double min;
  double max;
};

class JsonReader {
 public:
  // `object` outlives the reader; `what` begins every error: a file, or a file and the key in it.
  JsonReader(const nlohmann::json& object, std::string what);

  // The value of a key, or nullptr where it is absent or null. Counts as asked for.
  const nlohmann::json* find(std::string_view key);
  bool has(std::string_view key) { return find(key) != nullptr; }

  // Without a fallback the key is required. After an error the result is the fallback, or the
  // range's least value: callers read on and look at finish() once.
  int64_t integer(std::string_view key, IntRange range);
  int64_t integer_or(std::string_view key, IntRange range, int64_t fallback);
  double number(std::string_view key, FloatRange range);
  double number_or(std::string_view key, FloatRange range, double fallback);
  bool boolean_or(std::string_view key, bool fallback);
  std::string string_or(std::string_view key, std::string_view fallback);
  // One id or a list of at most `count_max`, each in [0, 2^31); sorted, without repeats.
  std::vector<int32_t> ids(std::string_view key, size_t count_max);

  // Keys that are known and change nothing.
  void ignore(std::span<const std::string_view> keys);

  // Refuses a key that is there with any value but `neutral`, the one that changes nothing.
  void require_neutral(std::string_view key, const nlohmann::json& neutral);

  // Keeps the first error: "<what>: '<key>' <problem>".
  void fail(std::string_view key, std::string_view problem);
  void fail(const absl::Status& status) { status_.Update(status); }

  // Keys that are there, are not null and were never asked for.
  std::vector<std::string> unread_keys() const;

  const absl::Status& status() const { return status_; }
  const std::string& what() const { return what_; }

 private:
  const nlohmann::json* require(std::string_view key);
  void fail_value(std::string_view key, const nlohmann::json& value, std::string_view expected);

  const nlohmann::json* object_;
  std::string what_;
  std::set<std::string, std::less<>> asked_;
  absl::Status status_;
};

}  // namespace pbserve::models
