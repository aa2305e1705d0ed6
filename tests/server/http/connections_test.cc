// The bound on connections of one client.
#include "server/http/connections.h"

#include <gtest/gtest.h>

namespace pbserve::server {
namespace {

TEST(HttpConnections, ANetworkOfIpv6HasTheLimitOfOneAddress) {
  HttpConnections connections({.key = "http.max_connections", .in_all = 100, .per_address = 1});
  HttpConnections::Scope one(&connections, "2001:db8::1", [] {});
  EXPECT_EQ(connections.make_room("2001:db8::2"),
            "server.max_connections_per_address = 1 are busy, all of 2001:db8::2");
  EXPECT_EQ(connections.make_room("2001:db8:0:1::1"), "");
  EXPECT_EQ(connections.make_room("10.0.0.1"), "");
  one.begin_wait();
  EXPECT_EQ(connections.make_room("2001:db8::2"), "");
}

}  // namespace
}  // namespace pbserve::server
