#include "server/http/contexts.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/strip.h"
#include "server/openai/contexts.h"
#include "server/openai/parse.h"

namespace pbserve::server {
namespace {

using Reply = absl::StatusOr<HttpReply>;

std::string id_of(const HttpRequest& request) {
  absl::string_view id = request.path;
  absl::ConsumePrefix(&id, "/v1/contexts/");
  if (request.method == "POST") absl::ConsumeSuffix(&id, "/parts");
  return std::string(id);
}

OpenAiParseOptions parse_options(const App& app) {
  return {.model_name = app.engine->info().model_name,
          .strict = app.config.http.strict_params,
          .request_id = {}};
}

Reply reply_with(const absl::StatusOr<ContextInfo>& info) {
  RETURN_IF_ERROR(info.status());
  return HttpReply{.body = dump_json(format_context(*info))};
}

}  // namespace

Reply create_context(App& app, const HttpRequest& request) {
  ASSIGN_OR_RETURN(Json body, parse_json_object(request.body, app.config.http.json));
  const JsonRelease release(&body);
  ASSIGN_OR_RETURN(ContextCall call, parse_context(body, parse_options(app)));
  release_json(&body);
  return reply_with(app.contexts.create(request.caller, call.header, std::move(call.part)));
}

Reply add_context_part(App& app, const HttpRequest& request) {
  ASSIGN_OR_RETURN(Json body, parse_json_object(request.body, app.config.http.json));
  const JsonRelease release(&body);
  ASSIGN_OR_RETURN(ContextStore::Part part, parse_context_part(body, parse_options(app)));
  release_json(&body);
  return reply_with(app.contexts.append(request.caller, id_of(request), std::move(part)));
}

Reply list_contexts(App& app, const HttpRequest& request) {
  Json data = Json::array();
  for (const ContextInfo& info : app.contexts.list(request.caller)) {
    data.push_back(format_context(info));
  }
  return HttpReply{.body = dump_json({{"object", "list"}, {"data", std::move(data)}})};
}

Reply get_context(App& app, const HttpRequest& request) {
  return reply_with(app.contexts.get(request.caller, id_of(request)));
}

Reply delete_context(App& app, const HttpRequest& request) {
  const std::string id = id_of(request);
  RETURN_IF_ERROR(app.contexts.remove(request.caller, id));
  return HttpReply{.body =
                       dump_json({{"id", id}, {"object", "context.deleted"}, {"deleted", true}})};
}

}  // namespace pbserve::server
