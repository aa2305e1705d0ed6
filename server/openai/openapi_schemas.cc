#include "server/openai/openapi_schemas.h"

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_replace.h"
#include "server/openai/fields.h"
#include "server/openai/openapi/parts.h"

namespace pbserve::server {
namespace {

// Refused, but for the values that change nothing; and accepted without an effect.
Json unserved_schemas() {
  Json schemas = Json::object();
  const Json refused = unserved_fields();
  for (const auto& [name, neutral] : refused.items()) {
    Json allowed = neutral;
    allowed.push_back(nullptr);
    schemas[name] = {{"enum", std::move(allowed)}, {"description", "Not supported."}};
  }
  for (const std::string& name : ignored_fields()) {
    schemas[name] = {{"description", "Has no effect."}};
  }
  return schemas;
}

Json request(std::initializer_list<Json> groups, Json required) {
  Json properties = Json::object();
  for (const Json& group : groups) properties.update(group);
  return {{"type", "object"},
          {"required", std::move(required)},
          {"additionalProperties", "@unknown_fields"},
          {"properties", std::move(properties)}};
}

Json generating(std::initializer_list<Json> groups, Json required) {
  Json schema = request(groups, std::move(required));
  schema["anyOf"] = {
      {{"required", {"stream"}}, {"properties", {{"stream", {{"const", true}}}}}},
      {{"properties", {{"stream_options", {{"type", "null"}}}}}},
  };
  return schema;
}

Json only_null(std::initializer_list<const char*> names) {
  Json properties = Json::object();
  for (const char* name : names) properties[name] = {{"type", "null"}};
  return {{"properties", std::move(properties)}};
}

}  // namespace

Json openapi_schemas() {
  const Json groups = Json::parse(kOpenApiRequests);
  const Json unserved = unserved_schemas();
  Json schemas = Json::parse(kOpenApiSchemas);
  schemas["CompletionRequest"] =
      generating({groups["completion"], groups["generation"], unserved}, {"prompt"});
  // A context has decided these.
  schemas["CompletionRequest"]["allOf"] = {
      {{"anyOf", {only_null({"context"}), only_null({"cache_salt", "add_special_tokens"})}}}};
  schemas["ContextRequest"] = request({groups["context"], groups["part"]}, Json::array());
  schemas["ContextPart"] = request({groups["part"]}, Json::array());
  schemas["ContextPart"]["anyOf"] = {
      {{"required", {"prompt"}}, {"properties", {{"prompt", {{"not", {{"type", "null"}}}}}}}},
      {{"required", {"last"}}, {"properties", {{"last", {{"const", true}}}}}}};
  schemas["ChatCompletionRequest"] = generating(
      {groups["conversation"], groups["no_context"], groups["generation"], unserved}, {"messages"});
  schemas["TokenizeRequest"]["anyOf"] = {
      request({groups["text"], groups["tokenize"], unserved}, {"prompt"}),
      request({groups["conversation"], groups["no_text"], groups["tokenize"], unserved},
              {"messages"})};
  schemas["DetokenizeRequest"] = request({groups["detokenize"]}, {"tokens"});
  return schemas;
}

namespace {

// A string that is a name becomes the value; in one that has a name in it, its text.
void fill_in(const Json& values, Json* at) {
  if (at->is_structured()) {
    for (Json& inner : *at) fill_in(values, &inner);
  }
  if (!at->is_string()) return;
  for (const auto& [name, value] : values.items()) {
    if (*at == name) {
      *at = value;
      return;
    }
    auto& text = at->get_ref<std::string&>();
    if (!value.is_string()) absl::StrReplaceAll({{name, value.dump()}}, &text);
  }
}

}  // namespace

void fill_in_limits(const OpenApiLimits& limits, Json* document) {
  const Json values = {{"@model_name", limits.model_name},
                       {"@max_model_len_but_one", limits.max_model_len - 1},
                       {"@max_model_len", limits.max_model_len},
                       {"@max_token_id", limits.vocab_size - 1},
                       {"@max_stop_strings", limits.request.max_stop_strings},
                       {"@max_stop_bytes", limits.request.max_stop_bytes},
                       {"@max_stop_token_ids", limits.request.max_stop_token_ids},
                       {"@max_cache_salt_bytes", limits.request.max_cache_salt_bytes},
                       {"@max_cache_hold_s", limits.max_cache_hold_s},
                       {"@priority_min", -engine::kPriorityMax},
                       {"@priority_max", engine::kPriorityMax},
                       {"@max_ttl_s", limits.max_ttl_s},
                       {"@threshold_min", shortest_decimal(limits.threshold_min)},
                       {"@unknown_fields", !limits.strict}};
  fill_in(values, document);
}

}  // namespace pbserve::server
