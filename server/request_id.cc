#include "server/request_id.h"

#include <algorithm>
#include <cstdint>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

}  // namespace

absl::Status check_request_id(absl::string_view id) {
  const bool is_clean = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == ':' || c == '-';
  });
  if (is_clean && !id.empty() && id.size() <= kMaxRequestIdBytes) return absl::OkStatus();
  return invalid_field("request_id", absl::StrCat("request_id must be 1 to ", kMaxRequestIdBytes,
                                                  " of the characters A-Z a-z 0-9 . _ : -"));
}

std::string make_request_id() {
  static thread_local std::mt19937_64 random{std::random_device{}()};
  const uint64_t high = random();
  const uint64_t low = random();
  return absl::StrFormat("%016x%08x", high, low >> 32);
}

}  // namespace pbserve::server
