// The route table, and that /openapi.json describes exactly it.
#include "server/http/routes.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "server/api_error.h"
#include "server/openai/openapi.h"

namespace pbserve::server {
namespace {

TEST(HttpRoutes, AreFoundByMethodAndPath) {
  for (const Route& route : routes()) {
    std::string path(route.path);
    if (const size_t brace = path.find('{'); brace != std::string::npos) {
      path = path.substr(0, brace) + "any/thing";
    }
    const auto found = find_route(route.method, path);
    ASSERT_TRUE(found.ok()) << path;
    EXPECT_EQ(*found, &route);
    EXPECT_EQ(http_status(find_route("DELETE", path).status()), 405) << path;
    EXPECT_TRUE(route.handler != nullptr || route.generates.has_value());
  }
  for (const char* path : {"/", "", "/v1", "/v1/models/", "/health/", "/HEALTH",
                           "/v1/completions/x", "//health", "/health%20"}) {
    EXPECT_EQ(http_status(find_route("GET", path).status()), 404) << path;
  }
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

TEST(OpenApi, DescribesEveryRoute) {
  const Json document = openapi_document();
  std::set<std::string> described;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      described.insert(method + " " + path);
      EXPECT_TRUE(operation["responses"].contains("200"));
    }
  }
  std::set<std::string> served;
  for (const Route& route : routes()) {
    served.insert((route.method == "POST" ? "post " : "get ") + std::string(route.path));
  }
  EXPECT_EQ(described, served);
}

TEST(OpenApi, HasTheShapesOfTheStandard) {
  const Json document = openapi_document();
  EXPECT_TRUE(document["security"][0].contains("key"));
  const Json& chat = document["paths"]["/v1/chat/completions"]["post"];
  const Json& schema = chat["requestBody"]["content"]["application/json"]["schema"];
  EXPECT_EQ(schema["required"], Json::array({"messages"}));
  EXPECT_TRUE(schema["properties"].contains("temperature"));
  EXPECT_FALSE(schema["properties"].contains("prompt"));
  const Json& model = document["paths"]["/v1/models/{id}"]["get"];
  EXPECT_EQ(model["parameters"][0]["name"], "id");
  EXPECT_EQ(document["paths"]["/health"]["get"]["security"], Json::array());
}

}  // namespace
}  // namespace pbserve::server
