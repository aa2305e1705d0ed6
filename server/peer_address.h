// What the other end of a connection is called: in sockets, in gRPC, in logs and in limits.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <string>

#include "absl/strings/string_view.h"

namespace pbserve::server {

// The address without the port; of an IPv4 client of an IPv6 socket the IPv4 address.
std::string address_of(const boost::asio::ip::tcp::endpoint& peer);

// Of gRPC's name of a peer, "ipv4:10.0.0.1:4711" or "ipv6:%5Bfe80::1%5D:4711". Of another kind of
// name all of it.
std::string address_of_peer(absl::string_view grpc_peer);

// "10.0.0.1:4711" or "[fe80::1]:4711": the same for a connection whoever tells of it.
std::string connection_name(const boost::asio::ip::tcp::endpoint& peer);
std::string connection_name(absl::string_view grpc_peer);

// What counts as one client: an IPv4 address, or the /64 that an IPv6 address is in, as any host
// has all of one. Of what is no address all of it.
std::string address_group(absl::string_view address);

}  // namespace pbserve::server
