#include "server/openai/openapi.h"

#include <nlohmann/json.hpp>
#include <string>

#include "server/http/routes.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

// Fields of both generating routes. What is not listed is ignored, or refused by name.
constexpr char kGenerationFields[] = R"json({
  "model": {"type": "string"},
  "max_tokens": {"type": "integer", "minimum": 1},
  "max_completion_tokens": {"type": "integer", "minimum": 1},
  "min_tokens": {"type": "integer", "minimum": 0},
  "temperature": {"type": "number", "minimum": 0, "maximum": 2},
  "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
  "top_k": {"type": "integer", "minimum": -1},
  "min_p": {"type": "number", "minimum": 0, "maximum": 1},
  "seed": {"type": "integer"},
  "stop": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
  "stop_token_ids": {"type": "array", "items": {"type": "integer"}},
  "ignore_eos": {"type": "boolean"},
  "include_stop_str_in_output": {"type": "boolean"},
  "skip_special_tokens": {"type": "boolean"},
  "add_special_tokens": {"type": "boolean"},
  "stream": {"type": "boolean"},
  "stream_options": {"type": "object", "properties": {
    "include_usage": {"type": "boolean"}, "continuous_usage_stats": {"type": "boolean"}}},
  "sparse_attention": {"type": "object", "properties": {
    "mode": {"enum": ["auto", "dense", "pbs"]}, "threshold": {"type": "number"}}},
  "cache_salt": {"type": "string"},
  "request_id": {"type": "string"},
  "include_metrics": {"type": "boolean"},
  "return_progress": {"type": "boolean"},
  "sse_keep_alive": {"type": "boolean"}
})json";

constexpr char kCompletionFields[] = R"json({
  "prompt": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]}
})json";

constexpr char kConversationFields[] = R"json({
  "messages": {"type": "array", "minItems": 1, "items": {"type": "object",
    "required": ["role"], "properties": {"role": {"type": "string"}, "content": {}}}},
  "tools": {"type": "array"},
  "tool_choice": {"enum": ["auto", "none"]},
  "chat_template_kwargs": {"type": "object"}
})json";

constexpr char kTokenizeFields[] = R"json({
  "prompt": {"type": "string"},
  "messages": {"type": "array"},
  "add_special_tokens": {"type": "boolean"},
  "return_token_strs": {"type": "boolean"}
})json";

constexpr char kDetokenizeFields[] = R"json({
  "tokens": {"type": "array", "items": {"type": "integer"}}
})json";

Json object_schema(Json properties, Json required) {
  return {
      {"type", "object"}, {"properties", std::move(properties)}, {"required", std::move(required)}};
}

Json body_schema(const Route& route) {
  Json common = Json::parse(kGenerationFields);
  if (route.generates == OpenAiApi::kCompletion) {
    common.update(Json::parse(kCompletionFields));
    return object_schema(common, {"prompt"});
  }
  if (route.generates == OpenAiApi::kChat) {
    common.update(Json::parse(kConversationFields));
    return object_schema(common, {"messages"});
  }
  if (route.path == "/tokenize") return object_schema(Json::parse(kTokenizeFields), Json::array());
  if (route.path == "/detokenize") {
    return object_schema(Json::parse(kDetokenizeFields), {"tokens"});
  }
  return {{"type", "object"}};
}

Json operation(const Route& route) {
  Json operation = {{"responses",
                     {{"200", {{"description", "success"}}},
                      {"default", {{"$ref", "#/components/responses/Error"}}}}}};
  if (route.is_open) operation["security"] = Json::array();
  if (route.path.find('{') != absl::string_view::npos) {
    operation["parameters"] = Json::array(
        {{{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
  }
  if (route.method == "POST") {
    operation["requestBody"] = {
        {"required", true}, {"content", {{"application/json", {{"schema", body_schema(route)}}}}}};
  }
  return operation;
}

constexpr char kComponents[] = R"json({
  "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
  "responses": {"Error": {"description": "what is wrong, and with which field",
    "content": {"application/json": {"schema": {"type": "object", "properties": {
      "error": {"type": "object", "properties": {
        "message": {"type": "string"}, "type": {"type": "string"},
        "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}}}}}}
})json";

}  // namespace

Json openapi_document() {
  Json document = {{"openapi", "3.1.0"},
                   {"info", {{"title", "pbserve"}, {"version", std::string(kVersion)}}},
                   {"security", Json::array({{{"key", Json::array()}}})},
                   {"components", Json::parse(kComponents)}};
  for (const Route& route : routes()) {
    const std::string method = route.method == "POST" ? "post" : "get";
    document["paths"][std::string(route.path)][method] = operation(route);
  }
  return document;
}

}  // namespace pbserve::server
