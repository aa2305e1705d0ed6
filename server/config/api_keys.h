// API keys as an operator writes them: `KEY`, or `KEY name=NAME`. A key holds no blanks, which
// RFC 6750 does not allow in one, so that every other character, ':' and '=' too, stays part of it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"

namespace pbserve::server {

// No key is longer.
inline constexpr size_t kApiKeyBytesMax = 512;

struct ApiKey {
  std::string key;
  std::string name;  // for logs and limits; "key2" if it is the second one and has none
};

// `text` is one entry, without blanks around it. Errors say what is wrong and quote nothing.
absl::StatusOr<ApiKey> parse_api_key(absl::string_view text);

// Those of `entries` (server.api_keys), then of the file's lines unless `file` is empty, then of
// the environment's PBSERVE_API_KEYS, with commas or newlines between them; '#' begins a comment
// line in both. All have names, and no two the same. A key that comes twice is one, and takes the
// name it has somewhere. Errors name the source and the line, never a key.
absl::StatusOr<std::vector<ApiKey>> read_api_keys(const std::vector<std::string>& entries,
                                                  const std::string& file);

}  // namespace pbserve::server
