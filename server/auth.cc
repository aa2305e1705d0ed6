#include "server/auth.h"

#include <utility>

#include "absl/strings/match.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

constexpr absl::string_view kScheme = "bearer ";

// No early way out, so that timing does not tell how much of a key is right.
bool equal_constant_time(absl::string_view a, absl::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    const char other = b.empty() ? '\0' : b[i % b.size()];
    difference |= static_cast<unsigned char>(a[i] ^ other);
  }
  return difference == 0;
}

}  // namespace

Auth::Auth(std::vector<std::string> keys) { replace(std::move(keys)); }

void Auth::replace(std::vector<std::string> keys) {
  keys_ = std::make_shared<Keys>(std::move(keys));
}

absl::Status Auth::check(absl::string_view authorization) const {
  const std::shared_ptr<Keys> keys = keys_;
  if (keys->empty()) return absl::OkStatus();
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return invalid_api_key();
  const absl::string_view given = authorization.substr(kScheme.size());
  bool is_known = false;
  for (const std::string& key : *keys) is_known |= equal_constant_time(given, key);
  return is_known ? absl::OkStatus() : invalid_api_key();
}

}  // namespace pbserve::server
