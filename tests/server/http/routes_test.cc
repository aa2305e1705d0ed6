// The route table.
#include "server/http/routes.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "server/api_error.h"

namespace pbserve::server {
namespace {

TEST(HttpRoutes, AreFoundByMethodAndPath) {
  for (const Route& route : routes()) {
    std::string path(route.path);
    if (const size_t brace = path.find('{'); brace != std::string::npos) {
      path.replace(brace, path.find('}') + 1 - brace, "any/thing");
    }
    const auto found = find_route(route.method, path);
    ASSERT_TRUE(found.ok()) << path;
    EXPECT_EQ(*found, &route);
    EXPECT_EQ(http_status(find_route("PUT", path).status()), 405) << path;
    EXPECT_TRUE(route.handler != nullptr || route.generates.has_value());
  }
  for (const char* path : {"/", "", "/v1", "/v1/models/", "/health/", "/HEALTH",
                           "/v1/completions/x", "//health", "/health%20"}) {
    EXPECT_EQ(http_status(find_route("GET", path).status()), 404) << path;
  }
}

TEST(HttpRoutes, APathSaysEveryMethodThatItTakesAndThatOfNoOther) {
  const auto allowed = [](const char* path) {
    for (const auto& [name, value] : to_http_reply(find_route("PUT", path).status()).headers) {
      if (name == "Allow") return value;
    }
    return std::string();
  };
  EXPECT_EQ(allowed("/v1/contexts"), "POST, GET, HEAD");
  EXPECT_EQ(allowed("/v1/contexts/x"), "GET, HEAD, DELETE");
  EXPECT_EQ(allowed("/v1/contexts/x/parts"), "POST");
  EXPECT_EQ(http_status(find_route("GET", "/v1/contexts/x/parts").status()), 405);
}

TEST(HttpRoutes, HeadFindsWhatGetDoes) {
  EXPECT_EQ(*find_route("HEAD", "/health"), *find_route("GET", "/health"));
  EXPECT_EQ(http_status(find_route("HEAD", "/v1/completions").status()), 405);
  EXPECT_EQ(http_status(find_route("HEAD", "/nope").status()), 404);
}

// A body is read for POST alone: without a key nobody can make the server hold one.
TEST(HttpRoutes, OpenRoutesTakeNoBody) {
  for (const Route& route : routes()) {
    EXPECT_TRUE(!route.is_open || route.method == "GET") << route.path;
  }
}

TEST(HttpRoutes, OnlyHealthAndReadinessAreOpen) {
  std::set<std::string> open;
  for (const Route& route : routes()) {
    if (route.is_open) open.insert(std::string(route.path));
  }
  EXPECT_EQ(open, (std::set<std::string>{"/health", "/healthz", "/ready", "/readyz"}));
}

}  // namespace
}  // namespace pbserve::server
