#include "server/config/cors_origins.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pbserve::server {
namespace {

bool is_scheme(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '+' || c == '.' || c == '-';
  });
}

bool is_host_and_port(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || absl::StrContains("-._~:[]", c);
  });
}

// As browsers write them: in lower case and without a path, so without a last slash.
bool is_origin(absl::string_view text) {
  if (text == "*") return true;
  const size_t end = text.find("://");
  return end != absl::string_view::npos && is_scheme(text.substr(0, end)) &&
         is_host_and_port(text.substr(end + 3));
}

absl::Status wrong(absl::string_view problem) { return absl::InvalidArgumentError(problem); }

}  // namespace

absl::Status check_cors_origins(const std::vector<std::string>& origins, bool allows_credentials) {
  for (const std::string& origin : origins) {
    if (is_origin(origin)) continue;
    return wrong(absl::StrCat("server.cors_origins holds '", origin,
                              "': must be * or scheme://host[:port], in lower case, without a path "
                              "or a slash at the end, as browsers write it"));
  }
  if (!allows_credentials) return absl::OkStatus();
  if (origins.empty()) {
    return wrong("server.cors_credentials is true: needs the origins in server.cors_origins");
  }
  if (std::find(origins.begin(), origins.end(), "*") != origins.end()) {
    return wrong(
        "server.cors_credentials is true: needs the origins in server.cors_origins one by "
        "one, and not *, which would let every page act for who visits it");
  }
  return absl::OkStatus();
}

}  // namespace pbserve::server
