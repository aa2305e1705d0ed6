// /openapi.json in step with the routes and with the parsers.
#include "server/openai/openapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "server/http/routes.h"

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Names = std::set<std::string>;

const Json& document() {
  static const Json document = openapi_document({.model_name = "demo",
                                                 .max_model_len = 4096,
                                                 .vocab_size = 1000,
                                                 .threshold_min = 0.05f,
                                                 .max_cache_hold_s = 600});
  return document;
}

const Json& schema(const std::string& name) { return document()["components"]["schemas"][name]; }

TEST(OpenApi, DescribesTheRoutesAndNoOthers) {
  Names described;
  for (const auto& [path, methods] : document()["paths"].items()) {
    if (methods.empty()) described.insert("nothing " + path);
    for (const auto& [method, operation] : methods.items()) {
      described.insert(method + " " + path);
      EXPECT_EQ(operation["responses"].contains("200"), path != "/v1/embeddings") << path;
    }
  }
  Names served;
  for (const Route& route : routes()) {
    const std::string path(route.path);
    served.insert(absl::AsciiStrToLower(route.method) + " " + path);
    if (route.method == "GET") served.insert("head " + path);
  }
  EXPECT_EQ(described, served);
}

void add_names(const Json& schema, const std::string& prefix, Names* names) {
  if (!schema.contains("properties")) return;
  for (const auto& [name, inner] : schema["properties"].items()) {
    names->insert(prefix + name);
    add_names(inner, prefix + name + ".", names);
  }
}

Names described_fields(const Json& schema) {
  Names names;
  add_names(schema, "", &names);
  return names;
}

using Parser = std::function<absl::Status(const Json&, const OpenAiParseOptions&)>;

// What the parser looked for in a body that has every part.
Names parsed_fields(const Parser& parse, const char* body) {
  std::vector<std::string> names;
  const OpenAiParseOptions options{
      .model_name = "demo", .strict = true, .request_id = "id", .known_fields = &names};
  const absl::Status status = parse(Json::parse(body), options);
  EXPECT_TRUE(status.ok()) << status;
  return {names.begin(), names.end()};
}

TEST(OpenApi, DescribesTheFieldsOfEveryParserAndNoOthers) {
  EXPECT_EQ(described_fields(schema("CompletionRequest")),
            parsed_fields(
                [](const Json& body, const auto& o) { return parse_completion(body, o).status(); },
                R"({"prompt":"x","stream":true,"stream_options":{},"sparse_attention":{}})"));
  EXPECT_EQ(
      described_fields(schema("ChatCompletionRequest")),
      parsed_fields([](const Json& body, const auto& o) { return parse_chat(body, o).status(); },
                    R"({"messages":[{"role":"user","content":""}],"stream":true,"stream_options":{},
                   "sparse_attention":{}})"));
  EXPECT_EQ(
      described_fields(schema("ContextRequest")),
      parsed_fields([](const Json& body, const auto& o) { return parse_context(body, o).status(); },
                    R"({"sparse_attention":{}})"));
  EXPECT_EQ(described_fields(schema("ContextPart")),
            parsed_fields([](const Json& body,
                             const auto& o) { return parse_context_part(body, o).status(); },
                          R"({"last":true})"));
  const Parser tokenize = [](const Json& body, const auto& o) {
    return parse_tokenize(body, o).status();
  };
  const Json& of_text_or_chat = schema("TokenizeRequest")["anyOf"];
  EXPECT_EQ(described_fields(of_text_or_chat[0]), parsed_fields(tokenize, R"({"prompt":"x"})"));
  EXPECT_EQ(described_fields(of_text_or_chat[1]),
            parsed_fields(tokenize, R"({"messages":[{"role":"user","content":""}]})"));
  EXPECT_EQ(described_fields(schema("DetokenizeRequest")),
            parsed_fields(
                [](const Json& body, const auto& o) { return parse_detokenize(body, o).status(); },
                R"({"tokens":[]})"));
}

// Every "$ref" leads somewhere.
void expect_references(const Json& value) {
  if (!value.is_structured()) return;
  for (const auto& [key, inner] : value.items()) {
    if (key == "$ref") {
      const Json::json_pointer target(inner.get<std::string>().substr(1));
      EXPECT_TRUE(document().contains(target)) << inner;
    }
    expect_references(inner);
  }
}

TEST(OpenApi, ReferencesLeadSomewhere) { expect_references(document()); }

TEST(OpenApi, LimitsAreThoseOfTheServer) {
  EXPECT_THAT(dump_json(document()), Not(HasSubstr("@")));
  EXPECT_EQ(schema("TokenId")["maximum"], 999);
  EXPECT_EQ(schema("PromptIds")["maxItems"], 4095);
  const Json& fields = schema("CompletionRequest")["properties"];
  EXPECT_EQ(fields["model"]["enum"], Json::parse(R"(["demo", "", null])"));
  EXPECT_EQ(fields["sparse_attention"]["properties"]["threshold"]["minimum"], 0.05);
  EXPECT_EQ(fields["cache_hold_s"]["maximum"], 600);
  EXPECT_THAT(fields["stop"]["description"], HasSubstr("256 bytes"));
  EXPECT_EQ(fields["n"]["enum"], Json::parse("[1, null]"));
}

TEST(OpenApi, UnknownFieldsAreAllowedWhereTheServerIgnoresThem) {
  const Json strict = openapi_document({.max_model_len = 2, .vocab_size = 2, .strict = true});
  for (const char* name : {"CompletionRequest", "ChatCompletionRequest", "DetokenizeRequest"}) {
    EXPECT_EQ(schema(name)["additionalProperties"], true) << name;
    EXPECT_EQ(strict["components"]["schemas"][name]["additionalProperties"], false) << name;
  }
}

TEST(OpenApi, ErrorsHaveTheirHeaders) {
  const Json& responses = document()["components"]["responses"];
  for (const auto& [name, response] : responses.items()) {
    EXPECT_TRUE(response["headers"].contains("X-Request-Id")) << name;
    EXPECT_EQ(response["content"]["application/json"]["schema"]["$ref"],
              "#/components/schemas/Error");
  }
  EXPECT_TRUE(responses["Error429"]["headers"].contains("Retry-After"));
  EXPECT_TRUE(responses["Error503"]["headers"].contains("Retry-After"));
  EXPECT_TRUE(responses["Error401"]["headers"].contains("WWW-Authenticate"));
}

TEST(OpenApi, HasTheShapesOfTheStandard) {
  EXPECT_TRUE(document()["security"][0].contains("bearer"));
  EXPECT_TRUE(document()["security"][1].contains("header"));
  const Json& chat = document()["paths"]["/v1/chat/completions"]["post"];
  EXPECT_EQ(chat["requestBody"]["content"]["application/json"]["schema"]["$ref"],
            "#/components/schemas/ChatCompletionRequest");
  EXPECT_EQ(schema("ChatCompletionRequest")["required"], Json::array({"messages"}));
  const Json& content = chat["responses"]["200"]["content"];
  EXPECT_TRUE(content.contains("application/json"));
  EXPECT_TRUE(content.contains("text/event-stream"));
  const Json& model = document()["paths"]["/v1/models/{id}"]["get"];
  EXPECT_EQ(model["parameters"][1]["name"], "id");
  EXPECT_EQ(document()["paths"]["/health"]["get"]["security"], Json::array());
}

}  // namespace
}  // namespace pbserve::server
