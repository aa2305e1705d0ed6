#include "server/caller.h"

#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace pbserve::server {
namespace {

constexpr absl::string_view kMappedIpv4 = "::ffff:";

}  // namespace

std::string address_of_peer(absl::string_view peer) {
  absl::string_view rest = peer;
  if (!absl::ConsumePrefix(&rest, "ipv4:") && !absl::ConsumePrefix(&rest, "ipv6:")) {
    return std::string(peer);
  }
  const size_t port = rest.rfind(':');
  const std::string address =
      absl::StrReplaceAll(rest.substr(0, port), {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}});
  const absl::string_view mapped = absl::StripPrefix(address, kMappedIpv4);
  return std::string(mapped.find('.') == absl::string_view::npos ? address : mapped);
}

}  // namespace pbserve::server
