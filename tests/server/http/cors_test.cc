// Who may read our answers from a browser, and what the server takes for an origin.
#include "server/http/cors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/config/cors_origins.h"

namespace pbserve::server {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

constexpr char kPage[] = "https://page.example";

ServerOptions allowing(std::vector<std::string> origins) {
  ServerOptions options;
  options.cors_origins = std::move(origins);
  return options;
}

HttpRequest preflight(const std::string& method, const std::string& path,
                      const std::string& origin = kPage) {
  HttpRequest request;
  request.method = "OPTIONS";
  request.path = path;
  request.headers = {{"origin", origin}, {"access-control-request-method", method}};
  return request;
}

TEST(Cors, WithoutAListThereIsNone) {
  EXPECT_THAT(cors_headers(allowing({}), kPage), IsEmpty());
  EXPECT_FALSE(preflight_reply(allowing({}), preflight("POST", "/v1/completions")));
}

TEST(Cors, AnAllowedOriginIsNamed) {
  const auto options = allowing({"http://localhost:3000", kPage});
  EXPECT_THAT(cors_headers(options, kPage),
              ElementsAre(Pair("Vary", "Origin"), Pair("Access-Control-Allow-Origin", kPage),
                          Pair("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")));
}

TEST(Cors, AnotherOriginIsNot) {
  const auto options = allowing({kPage});
  for (const char* origin :
       {"", "null", "https://page.example.evil", "http://page.example", "https://page.example:444",
        "https://evil/https://page.example", "HTTPS://PAGE.EXAMPLE", "*"}) {
    EXPECT_THAT(cors_headers(options, origin), ElementsAre(Pair("Vary", "Origin"))) << origin;
    EXPECT_FALSE(preflight_reply(options, preflight("POST", "/v1/completions", origin)));
  }
}

TEST(Cors, AStarAllowsAllAndSaysSo) {
  EXPECT_THAT(cors_headers(allowing({"*"}), kPage),
              ElementsAre(Pair("Access-Control-Allow-Origin", "*"),
                          Pair("Access-Control-Expose-Headers", "X-Request-Id, Retry-After")));
  EXPECT_THAT(cors_headers(allowing({"*"}), ""), IsEmpty());
}

TEST(Cors, CredentialsAreAllowedIfTheConfigSaysSo) {
  auto options = allowing({kPage});
  options.cors_credentials = true;
  EXPECT_THAT(cors_headers(options, kPage),
              Contains(Pair("Access-Control-Allow-Credentials", "true")));
  EXPECT_THAT(cors_headers(options, "https://other.example"),
              Not(Contains(Pair("Access-Control-Allow-Credentials", "true"))));
}

TEST(Cors, APreflightOfARouteIsAnswered) {
  HttpRequest request = preflight("POST", "/v1/chat/completions");
  request.headers["access-control-request-headers"] = "authorization,content-type,x-stainless-os";
  const auto reply = preflight_reply(allowing({kPage}), request);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->status, 204);
  EXPECT_EQ(reply->body, "");
  EXPECT_THAT(reply->headers, Contains(Pair("Access-Control-Allow-Methods", "POST")));
  EXPECT_THAT(reply->headers, Contains(Pair("Access-Control-Allow-Headers",
                                            "authorization,content-type,x-stainless-os")));
}

TEST(Cors, WhatIsNoPreflightOfARouteIsARequestAsAnyOther) {
  const auto options = allowing({kPage});
  EXPECT_FALSE(preflight_reply(options, preflight("POST", "/nowhere")));
  EXPECT_FALSE(preflight_reply(options, preflight("GET", "/v1/completions")));
  EXPECT_FALSE(preflight_reply(options, preflight("", "/v1/completions")));
  HttpRequest post = preflight("POST", "/v1/completions");
  post.method = "POST";
  EXPECT_FALSE(preflight_reply(options, post));
}

TEST(Cors, HeadersThatAreNoNamesAreNotRepeated) {
  HttpRequest request = preflight("POST", "/v1/completions");
  request.headers["access-control-request-headers"] = "a\"b:<script>";
  const auto reply = preflight_reply(allowing({kPage}), request);
  ASSERT_TRUE(reply);
  for (const auto& [name, value] : reply->headers) EXPECT_NE(name, "Access-Control-Allow-Headers");
}

TEST(CorsOrigins, AreWrittenAsBrowsersDo) {
  for (const char* good : {"*", "https://a.example", "http://localhost:3000", "http://[::1]:80",
                           "chrome-extension://abc", "tauri://localhost"}) {
    EXPECT_TRUE(check_cors_origins({good}, false).ok()) << good;
  }
  for (const char* wrong :
       {"", "null", "a.example", "https://a.example/", "https://A.example", "https://a.example/x",
        "https://*.example", "https://", "://a", "https://u@a", "https://a b"}) {
    EXPECT_THAT(std::string(check_cors_origins({"*", wrong}, false).message()),
                HasSubstr("server.cors_origins holds '" + std::string(wrong) + "'"));
  }
}

TEST(CorsOrigins, CredentialsNeedThemOneByOne) {
  EXPECT_TRUE(check_cors_origins({kPage}, true).ok());
  EXPECT_FALSE(check_cors_origins({}, true).ok());
  EXPECT_FALSE(check_cors_origins({kPage, "*"}, true).ok());
}

}  // namespace
}  // namespace pbserve::server
