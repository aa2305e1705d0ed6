// One client has one name, whether a socket or gRPC tells of it.
#include "server/peer_address.h"

#include <gtest/gtest.h>

namespace pbserve::server {
namespace {

boost::asio::ip::tcp::endpoint endpoint(const char* address) {
  return {boost::asio::ip::make_address(address), 4711};
}

TEST(PeerAddress, AddressesComeWithoutThePort) {
  EXPECT_EQ(address_of_peer("ipv4:10.0.0.1:4711"), "10.0.0.1");
  EXPECT_EQ(address_of_peer("ipv6:%5B::1%5D:4711"), "::1");
  EXPECT_EQ(address_of_peer("ipv6:[fe80::1]:4711"), "fe80::1");
  EXPECT_EQ(address_of_peer("ipv6:%5B::ffff:10.0.0.1%5D:4711"), "10.0.0.1");
  EXPECT_EQ(address_of_peer("unix:/run/x"), "unix:/run/x");
  EXPECT_EQ(address_of_peer("ipv4:nonsense"), "ipv4:nonsense");
  EXPECT_EQ(address_of(endpoint("10.0.0.1")), "10.0.0.1");
  EXPECT_EQ(address_of(endpoint("2001:db8::1")), "2001:db8::1");
  EXPECT_EQ(address_of(endpoint("::ffff:10.0.0.1")), "10.0.0.1");
}

TEST(PeerAddress, SocketsAndGrpcCallAConnectionTheSame) {
  EXPECT_EQ(connection_name("ipv4:10.0.0.1:4711"), "10.0.0.1:4711");
  EXPECT_EQ(connection_name(endpoint("10.0.0.1")), "10.0.0.1:4711");
  EXPECT_EQ(connection_name(endpoint("::ffff:10.0.0.1")), "10.0.0.1:4711");
  EXPECT_EQ(connection_name("ipv6:%5B2001:db8::1%5D:4711"), "[2001:db8::1]:4711");
  EXPECT_EQ(connection_name(endpoint("2001:db8::1")), "[2001:db8::1]:4711");
  // An address of one link comes with its interface.
  EXPECT_EQ(connection_name("ipv6:%5Bfe80::1%25lo%5D:4711"),
            connection_name(endpoint("fe80::1%lo")));
  EXPECT_NE(connection_name(endpoint("fe80::1%lo")), connection_name(endpoint("fe80::1")));
}

TEST(PeerAddress, AClientIsAnIpv4AddressOrTheNetworkOfAnIpv6Address) {
  EXPECT_EQ(address_group("10.0.0.1"), "10.0.0.1");
  EXPECT_EQ(address_group("::ffff:10.0.0.1"), "10.0.0.1");
  EXPECT_EQ(address_group("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
  EXPECT_EQ(address_group("2001:db8:1:2::7"), "2001:db8:1:2::/64");
  EXPECT_NE(address_group("2001:db8:1:3::7"), address_group("2001:db8:1:2::7"));
  EXPECT_NE(address_group("fe80::1%lo"), address_group("fe80::1"));
  EXPECT_EQ(address_group("unix:/run/x"), "unix:/run/x");
}

}  // namespace
}  // namespace pbserve::server
