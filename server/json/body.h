// Parses a client's JSON under limits. One pass over the raw bytes bounds depth, values and object
// members first, so that no small body can make the parser recurse or allocate without bound.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"

namespace pbserve::server {

// Keeps the members' order: chat templates print tools as the client wrote them.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  int32_t max_depth = 64;
  int64_t max_values = 4 << 20;       // a million token ids and room; about 100 bytes each, parsed
  int32_t max_object_members = 1024;  // finding a field is linear
};

// kInvalidArgument names the limit and where it was passed.
absl::Status check_json_limits(absl::string_view text, const JsonLimits& limits);

// The parsed value. Invalid UTF-8, lone surrogates, NaN and numbers beyond double are errors, which
// quote nothing of the text: it is a prompt, and errors are logged.
absl::StatusOr<Json> parse_json(absl::string_view text, const JsonLimits& limits);

// The same, and the value must be an object: every request body is one.
absl::StatusOr<Json> parse_json_object(absl::string_view text, const JsonLimits& limits);

// Frees what the value holds, and makes it null. Unlike the library's destructor, which copies
// every array first and ends the process where it cannot, it needs no memory. Recurses into the
// depth of the value, which JsonLimits bounds.
void release_json(Json* value);

// The same at the end of a scope, for values whose size a client chooses.
class JsonRelease {
 public:
  explicit JsonRelease(Json* value) : value_(value) {}
  ~JsonRelease() { release_json(value_); }
  JsonRelease(const JsonRelease&) = delete;
  JsonRelease& operator=(const JsonRelease&) = delete;

 private:
  Json* value_;
};

// UTF-8 text of a value; never throws (bytes that are not UTF-8 become U+FFFD).
std::string dump_json(const Json& value);

// 0.9f as 0.9, not as the double next to it.
double shortest_decimal(float value);

}  // namespace pbserve::server
