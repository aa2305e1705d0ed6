#include "server/kv_events/endpoint.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/config/host_address.h"

namespace pbserve::server {
namespace {

constexpr absl::string_view kTcp = "tcp://";
constexpr absl::string_view kIpc = "ipc://";
constexpr size_t kIpcPathMax = 107;  // sun_path, with its end

bool is_tcp(absl::string_view endpoint) { return absl::StartsWith(endpoint, kTcp); }

// "*", "127.0.0.1", "[::1]" or a name; empty where there is no port behind it.
std::string host_of(absl::string_view endpoint) {
  const absl::string_view address = endpoint.substr(kTcp.size());
  const size_t colon = address.rfind(':');
  return colon == address.npos ? "" : std::string(address.substr(0, colon));
}

bool has_port(absl::string_view endpoint) {
  const absl::string_view text = endpoint.substr(endpoint.rfind(':') + 1);
  int port = 0;
  return text == "*" || (absl::SimpleAtoi(text, &port) && port >= 1 && port <= 65535);
}

}  // namespace

absl::Status check_endpoint(const std::string& key, const std::string& endpoint) {
  const size_t path_bytes = endpoint.size() - std::min(endpoint.size(), kIpc.size());
  const bool is_path = absl::StartsWith(endpoint, kIpc) && path_bytes > 0;
  if (is_path && path_bytes <= kIpcPathMax) return absl::OkStatus();
  if (is_tcp(endpoint) && !host_of(endpoint).empty() && has_port(endpoint)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(key, " = ", endpoint, ": must be tcp://HOST:PORT, the port 1 to 65535 or *, or ",
                   "ipc://PATH of at most ", kIpcPathMax, " bytes"));
}

bool is_listening_endpoint(const std::string& endpoint) {
  if (!is_tcp(endpoint) || absl::StrContains(endpoint, '*')) return true;
  const std::string host = host_of(endpoint);
  return absl::StrContains(host, "::") || host == "0.0.0.0" || is_loopback(host);
}

bool is_local_endpoint(const std::string& endpoint) {
  const std::string host = is_tcp(endpoint) ? host_of(endpoint) : "127.0.0.1";
  return is_loopback(host) || host == "[::1]";
}

}  // namespace pbserve::server
