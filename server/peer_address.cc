#include "server/peer_address.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <charconv>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kGroupBytes = 8;  // of an IPv6 address: a /64

asio::ip::address unmapped(const asio::ip::address& address) {
  if (address.is_v4() || !address.to_v6().is_v4_mapped()) return address;
  return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

// gRPC escapes the brackets and the sign before an interface as a URI has them.
std::optional<tcp::endpoint> endpoint_of(absl::string_view grpc_peer) {
  if (!absl::ConsumePrefix(&grpc_peer, "ipv4:") && !absl::ConsumePrefix(&grpc_peer, "ipv6:")) {
    return std::nullopt;
  }
  const std::string name =
      absl::StrReplaceAll(grpc_peer, {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
  const size_t colon = name.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  uint16_t port = 0;
  std::from_chars(name.data() + colon + 1, name.data() + name.size(), port);
  absl::string_view host = absl::string_view(name).substr(0, colon);
  host = absl::StripSuffix(absl::StripPrefix(host, "["), "]");
  error_code error;
  const asio::ip::address address = asio::ip::make_address(std::string(host), error);
  if (error) return std::nullopt;
  return tcp::endpoint(address, port);
}

}  // namespace

std::string address_of(const tcp::endpoint& peer) { return unmapped(peer.address()).to_string(); }

std::string address_of_peer(absl::string_view grpc_peer) {
  const auto peer = endpoint_of(grpc_peer);
  return peer ? address_of(*peer) : std::string(grpc_peer);
}

std::string connection_name(const tcp::endpoint& peer) {
  const asio::ip::address address = unmapped(peer.address());
  if (address.is_v4()) return absl::StrCat(address.to_string(), ":", peer.port());
  return absl::StrCat("[", address.to_string(), "]:", peer.port());
}

std::string connection_name(absl::string_view grpc_peer) {
  const auto peer = endpoint_of(grpc_peer);
  return peer ? connection_name(*peer) : std::string(grpc_peer);
}

std::string address_group(absl::string_view address) {
  error_code error;
  const asio::ip::address parsed = asio::ip::make_address(std::string(address), error);
  if (error) return std::string(address);
  const asio::ip::address peer = unmapped(parsed);
  if (peer.is_v4()) return peer.to_string();
  asio::ip::address_v6::bytes_type bytes = peer.to_v6().to_bytes();
  std::fill(bytes.begin() + kGroupBytes, bytes.end(), 0);
  return absl::StrCat(asio::ip::address_v6(bytes, peer.to_v6().scope_id()).to_string(), "/64");
}

}  // namespace pbserve::server
