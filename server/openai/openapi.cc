#include "server/openai/openapi.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/http/routes.h"
#include "server/openai/openapi/parts.h"
#include "server/openai/openapi_schemas.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

constexpr char kJsonType[] = "application/json";

Json ref(absl::string_view kind, absl::string_view name) {
  return {{"$ref", absl::StrCat("#/components/", kind, "/", name)}};
}

Json content(const std::string& media_type, Json schema) {
  return {{media_type, {{"schema", std::move(schema)}}}};
}

Json response_headers() { return {{"X-Request-Id", ref("headers", "RequestId")}}; }

// One server-sent event; comments are none.
Json event_schema(const Json& chunk) {
  const Json json = {{"type", "string"},
                     {"contentMediaType", kJsonType},
                     {"contentSchema", {{"anyOf", {chunk, ref("schemas", "Error")}}}}};
  const Json data = {{"anyOf", {json, {{"const", "[DONE]"}}}},
                     {"description", "JSON, and [DONE] after the last of it."}};
  return {{"type", "object"}, {"required", {"data"}}, {"properties", {{"data", data}}}};
}

Json success(const Json& text) {
  Json response = {{"description", "Success"}, {"headers", response_headers()}};
  response["content"] = content(text.value("media_type", kJsonType), text["response"]);
  if (text.contains("chunk")) {
    response["content"].update(content("text/event-stream", event_schema(text["chunk"])));
    response["description"] = "The whole answer, or with stream: true its pieces";
  }
  return response;
}

// What every route may answer, and what those with a body may besides.
bool may_answer(const Route& route, absl::string_view status) {
  if (status == "401") return !route.is_open;
  if (status == "404") return route.method == "POST" || absl::StrContains(route.path, "{");
  if (status == "409") return absl::StartsWith(route.path, "/v1/co") && route.method == "POST";
  for (const char* of_bodies : {"413", "415", "429", "499", "501", "504"}) {
    if (status == of_bodies) return route.method == "POST";
  }
  return true;
}

Json responses(const Route& route, const Json& text, const Json& errors) {
  Json responses = Json::object();
  if (text.contains("response")) responses["200"] = success(text);
  for (const auto& [status, description] : errors.items()) {
    if (may_answer(route, status)) responses[status] = ref("responses", "Error" + status);
  }
  if (text.contains("failure")) {
    responses["503"] = {{"description", "Not now: the summary says why"},
                        {"headers", response_headers()},
                        {"content", content(kJsonType, text["failure"])}};
  }
  return responses;
}

Json operation(const Route& route, const Json& text, const Json& errors) {
  Json operation = {{"summary", text["summary"]},
                    {"parameters", Json::array({ref("parameters", "RequestId")})},
                    {"responses", responses(route, text, errors)}};
  if (route.is_open) operation["security"] = Json::array();
  if (absl::StrContains(route.path, "{")) {
    operation["parameters"].push_back(
        {{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  }
  if (text.contains("request")) {
    operation["requestBody"] = {
        {"required", true},
        {"content", content(kJsonType, ref("schemas", text["request"].get<std::string>()))}};
  }
  return operation;
}

// HEAD answers as GET does, without the content.
Json head_operation(Json operation, const Json& error_headers) {
  for (auto& [status, response] : operation["responses"].items()) {
    if (response.contains("$ref")) {
      response = {{"description", "As for GET"}, {"headers", error_headers.at(status)}};
    }
    response.erase("content");
  }
  return operation;
}

Json error_headers(absl::string_view status) {
  Json headers = response_headers();
  if (status == "429" || status == "503") headers["Retry-After"] = ref("headers", "RetryAfter");
  if (status == "401") headers["WWW-Authenticate"] = ref("headers", "WwwAuthenticate");
  return headers;
}

Json header(const char* description, Json schema) {
  return {{"description", description}, {"required", true}, {"schema", std::move(schema)}};
}

Json components(const Json& errors) {
  Json components = {{"securitySchemes",
                      {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
                       {"header", {{"type", "apiKey"}, {"in", "header"}, {"name", "x-api-key"}}}}}};
  components["headers"] = {
      {"RequestId", header("The request's name in the log", {{"type", "string"}})},
      {"RetryAfter", header("Seconds to wait", {{"type", "integer"}, {"minimum", 1}})},
      {"WwwAuthenticate", header("What is asked for", {{"const", "Bearer"}})}};
  components["parameters"]["RequestId"] = {
      {"name", "X-Request-Id"},
      {"in", "header"},
      {"description", "The request's name in the log, the answer and its header"},
      {"schema", {{"type", "string"}, {"pattern", "^[A-Za-z0-9._:-]{0,128}$"}}}};
  for (const auto& [status, description] : errors.items()) {
    components["responses"]["Error" + status] = {
        {"description", description},
        {"headers", error_headers(status)},
        {"content", content(kJsonType, ref("schemas", "Error"))}};
  }
  return components;
}

// The operations of one path: GET brings HEAD. Where it has several, each has its own text.
Json path_item(absl::string_view path, const Json& text, const Json& errors) {
  Json headers = Json::object();
  for (const auto& [status, description] : errors.items()) headers[status] = error_headers(status);
  Json item = Json::object();
  for (const Route& route : routes()) {
    if (route.path != path) continue;
    const std::string method = absl::AsciiStrToLower(route.method);
    const Json described = operation(route, text.contains(method) ? text[method] : text, errors);
    item[method] = described;
    if (route.method == "GET") item["head"] = head_operation(described, headers);
  }
  return item;
}

}  // namespace

Json openapi_document(const OpenApiLimits& limits) {
  const Json errors = Json::parse(kOpenApiErrors);
  const Json texts = Json::parse(kOpenApiPaths);
  Json document = {
      {"openapi", "3.1.0"},
      {"info", {{"title", "pbserve"}, {"version", std::string(kVersion)}}},
      {"security", Json::array({{{"bearer", Json::array()}}, {{"header", Json::array()}}})},
      {"paths", Json::object()},
      {"components", components(errors)}};
  for (const auto& [path, text] : texts.items()) {
    const Json& described = text.contains("like") ? texts[text["like"].get<std::string>()] : text;
    document["paths"][path] = path_item(path, described, errors);
  }
  document["components"]["schemas"] = openapi_schemas();
  fill_in_limits(limits, &document);
  return document;
}

}  // namespace pbserve::server
