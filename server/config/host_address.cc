#include "server/config/host_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace pbserve::server {
namespace {

bool is_address(const std::string& host) {
  in6_addr bytes;  // either kind fits
  return inet_pton(AF_INET, host.c_str(), &bytes) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &bytes) == 1;
}

std::string numeric(const addrinfo& address) {
  char text[NI_MAXHOST] = "";
  getnameinfo(address.ai_addr, address.ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
  return text;
}

}  // namespace

absl::StatusOr<std::string> resolve_host(const std::string& host) {
  if (is_address(host)) return host;
  const auto failed = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("server.host = ", host,
                     ": must be an address such as 0.0.0.0 or a name that has one: ", why));
  };
  if (host.empty()) return failed("it is empty");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (error != 0) return failed(gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  for (const int family : {AF_INET, AF_INET6}) {
    for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
      if (at->ai_family == family) return numeric(*at);
    }
  }
  return failed("it has neither an IPv4 nor an IPv6 address");
}

bool is_loopback(const std::string& address) {
  return absl::StartsWith(address, "127.") || address == "::1";
}

}  // namespace pbserve::server
