// What may be held for clients against the memory that there is.
#include "server/config/memory_limit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;

TEST(MemoryLimit, WhatDoesNotFitIsRefusedByName) {
  ServerConfig config;
  config.server.max_buffered_bytes = 1000 << 20;
  config.http.max_connections = 1000;
  config.http.max_header_bytes = 64 << 10;
  config.grpc.max_connections = 1000;
  config.contexts.max_bytes = 5 << 20;
  const int64_t connections = 2000 * (int64_t{64} << 10);
  const int64_t needed = config.server.max_buffered_bytes + config.contexts.max_bytes + connections;
  EXPECT_TRUE(check_buffers_fit({.bytes = needed, .name = "x"}, config).ok());
  const absl::Status refused = check_buffers_fit({.bytes = needed - 1, .name = "RLIMIT_X"}, config);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("server.max_buffered_bytes = 1048576000, contexts.max_bytes = "
                        "5242880 and 131072000 bytes"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("do not fit into RLIMIT_X = 1184890879"));
  config.grpc.enabled = false;
  EXPECT_TRUE(check_buffers_fit({.bytes = needed - connections / 2, .name = "x"}, config).ok());
  config.server.ssl_certfile = "server.pem";  // takes memory of its own for each connection
  EXPECT_FALSE(check_buffers_fit({.bytes = needed - connections / 2, .name = "x"}, config).ok());
}

TEST(MemoryLimit, IsKnown) {
  const engine::MemoryLimit limit = engine::host_memory_limit();
  EXPECT_GT(limit.bytes, 64 << 20);
  EXPECT_FALSE(limit.name.empty());
}

}  // namespace
}  // namespace pbserve::server
