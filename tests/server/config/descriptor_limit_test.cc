// The limits on connections against the limit on open files.
#include "server/config/descriptor_limit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;

ServerConfig config_with(int32_t http, int32_t grpc) {
  ServerConfig config;
  config.http.max_connections = http;
  config.grpc.max_connections = grpc;
  return config;
}

TEST(DescriptorLimit, LeavesWhatFits) {
  ServerConfig config = config_with(4096, 4096);
  EXPECT_TRUE(fit_connections(std::numeric_limits<int64_t>::max(), &config).ok());
  EXPECT_TRUE(fit_connections(128 + 8192, &config).ok());
  EXPECT_EQ(config.http.max_connections, 4096);
  EXPECT_EQ(config.grpc.max_connections, 4096);
}

TEST(DescriptorLimit, LowersInProportion) {
  ServerConfig config = config_with(3000, 1000);
  EXPECT_TRUE(fit_connections(1024, &config).ok());
  EXPECT_EQ(config.http.max_connections, 672);
  EXPECT_EQ(config.grpc.max_connections, 224);
}

TEST(DescriptorLimit, LeavesEachOne) {
  ServerConfig config = config_with(1 << 20, 1);
  EXPECT_TRUE(fit_connections(160, &config).ok());
  EXPECT_EQ(config.http.max_connections, 31);
  EXPECT_EQ(config.grpc.max_connections, 1);
}

TEST(DescriptorLimit, KnowsThatThereMayBeNoGrpc) {
  ServerConfig config = config_with(896, 4096);
  config.grpc.enabled = false;
  EXPECT_TRUE(fit_connections(1024, &config).ok());
  EXPECT_EQ(config.http.max_connections, 896);
  EXPECT_EQ(config.grpc.max_connections, 4096);
}

TEST(DescriptorLimit, RefusesNextToNothing) {
  ServerConfig config;
  const absl::Status status = fit_connections(159, &config);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("RLIMIT_NOFILE = 159: must be at least 160"));
  EXPECT_TRUE(fit_connections(160, &config).ok());
}

}  // namespace
}  // namespace pbserve::server
