#include "server/http/render.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "server/openai/format.h"
#include "server/openai/parse.h"
#include "server/request_id.h"

namespace pbserve::server {
namespace {

absl::StatusOr<OpenAiCall> parse(const App& app, OpenAiApi api, const HttpRequest& request) {
  const std::string given = header_or_empty(request, "x-request-id");
  const OpenAiParseOptions options{.model_name = app.engine->info().model_name,
                                   .strict = app.config.http.strict_params,
                                   .request_id = given.empty() ? make_request_id() : given};
  ASSIGN_OR_RETURN(Json body, parse_json_object(request.body, app.config.http.json));
  const JsonRelease release(&body);
  return api == OpenAiApi::kChat ? parse_chat(body, options) : parse_completion(body, options);
}

absl::StatusOr<Json> render(App& app, OpenAiApi api, const HttpRequest& request) {
  ASSIGN_OR_RETURN(OpenAiCall call, parse(app, api, request));
  if (!call.context.empty()) {
    RETURN_IF_ERROR(app.contexts.use(request.caller, call.context, &call.request));
  }
  ASSIGN_OR_RETURN(const engine::RenderedRequest rendered, app.engine->render(call.request));
  return format_render(call, rendered, app.engine->info().model_name);
}

}  // namespace

// A list, because a completion may have several prompts elsewhere.
absl::StatusOr<HttpReply> render_completion(App& app, const HttpRequest& request) {
  ASSIGN_OR_RETURN(Json call, render(app, OpenAiApi::kCompletion, request));
  return HttpReply{.body = dump_json(Json::array({std::move(call)}))};
}

absl::StatusOr<HttpReply> render_chat(App& app, const HttpRequest& request) {
  ASSIGN_OR_RETURN(const Json call, render(app, OpenAiApi::kChat, request));
  return HttpReply{.body = dump_json(call)};
}

}  // namespace pbserve::server
