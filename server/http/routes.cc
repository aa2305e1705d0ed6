#include "server/http/routes.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/http/contexts.h"
#include "server/http/render.h"
#include "server/kv_events/publisher.h"
#include "server/log.h"
#include "server/metrics/process_metrics.h"
#include "server/openai/format.h"
#include "server/openai/openapi.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

using Reply = absl::StatusOr<HttpReply>;

HttpReply json_reply(const Json& body) { return {.body = dump_json(body)}; }

OpenAiParseOptions parse_options(const App& app) {
  return {.model_name = app.engine->info().model_name,
          .strict = app.config.http.strict_params,
          .request_id = {}};
}

Json model_card(const App& app) {
  const engine::EngineInfo& info = app.engine->info();
  return {{"id", info.model_name},
          {"object", "model"},
          {"created", app.started_s},
          {"owned_by", "pbserve"},
          {"root", app.config.engine.model.path},
          {"max_model_len", info.max_model_len}};
}

// A balancer or an orchestrator restarts what fails here.
Reply health(App& app, const HttpRequest&) {
  const double limit_s = app.config.server.watchdog_s;
  const double stalled_s = app.engine->stalled_s();
  if (limit_s == 0 || stalled_s < limit_s) return json_reply({{"status", "ok"}});
  HttpReply reply = json_reply({{"status", "stalled"}, {"stalled_s", stalled_s}});
  reply.status = 503;
  return reply;
}

Reply ready(App& app, const HttpRequest&) {
  const ReadyState state = app.readiness.state();
  if (state == ReadyState::kReady) return json_reply({{"status", "ready"}});
  HttpReply reply = json_reply({{"status", "not ready"}, {"reason", reason_of(state)}});
  reply.status = 503;
  return reply;
}

Reply version(App&, const HttpRequest&) { return json_reply({{"version", std::string(kVersion)}}); }

Reply models(App& app, const HttpRequest&) {
  return json_reply({{"object", "list"}, {"data", Json::array({model_card(app)})}});
}

Reply model(App& app, const HttpRequest& request) {
  const absl::string_view id = absl::string_view(request.path).substr(sizeof("/v1/models/") - 1);
  if (id != app.engine->info().model_name) return model_not_found(id.substr(0, kRepeatedBytesMax));
  return json_reply(model_card(app));
}

Reply load(App& app, const HttpRequest&) {
  const engine::EngineLoad load = app.engine->load();
  return json_reply({{"server_load", load.num_running + load.num_waiting},
                     {"num_running", load.num_running},
                     {"num_waiting", load.num_waiting},
                     {"num_pages_used", load.num_pages_used},
                     {"num_pages_cached", load.num_pages_cached},
                     {"num_pages", app.engine->info().num_pages}});
}

Reply server_info(App& app, const HttpRequest&) {
  const engine::EngineInfo& info = app.engine->info();
  return json_reply({{"version", std::string(kVersion)},
                     {"model", info.model_name},
                     {"architecture", info.architecture},
                     {"device", info.device},
                     {"dtype", info.dtype},
                     {"max_model_len", info.max_model_len},
                     {"num_pages", info.num_pages},
                     {"page_size", info.page_size},
                     {"vocab_size", info.vocab_size},
                     {"sparse_attention", info.sparse_attention},
                     {"system_fingerprint", app.fingerprint}});
}

Reply config(App& app, const HttpRequest&) { return json_reply(effective_config(app.config)); }

std::string render_server_metrics(const App& app) {
  const SpanExporter* const spans = app.span_exporter.get();
  GrpcConnections* const grpc = app.grpc_connections.get();
  const KvEventPublisher* const events = app.kv_events;
  const ContextStore::Totals contexts = app.contexts.totals();
  return app.metrics->render({.http_connections = app.http_connections.num_open(),
                              .grpc_connections = grpc != nullptr ? grpc->num_open() : 0,
                              .http_connections_refused = app.http_connections.num_refused(),
                              .grpc_connections_refused = grpc != nullptr ? grpc->num_refused() : 0,
                              .log_lines_dropped = num_dropped_log_lines(),
                              .spans_exported = spans != nullptr ? spans->num_exported() : 0,
                              .spans_dropped = spans != nullptr ? spans->num_dropped() : 0,
                              .kv_event_messages = events ? events->num_published() : 0,
                              .kv_event_messages_replayed = events ? events->num_replayed() : 0,
                              .kv_events_dropped = events ? events->num_dropped() : 0,
                              .contexts = contexts.num_contexts,
                              .context_bytes = contexts.bytes});
}

Reply metrics(App& app, const HttpRequest&) {
  return HttpReply{.content_type = "text/plain; version=0.0.4; charset=utf-8",
                   .body = app.engine->metrics().render() + render_server_metrics(app) +
                           render_process_metrics()};
}

Reply openapi(App& app, const HttpRequest&) {
  const engine::EngineInfo& info = app.engine->info();
  return json_reply(openapi_document(
      {.model_name = info.model_name,
       .max_model_len = info.max_model_len,
       .vocab_size = info.vocab_size,
       .threshold_min = app.config.engine.pbs.threshold_min,
       .max_cache_hold_s = engine::longest_cache_hold_s(app.config.engine.scheduler),
       .request = app.config.engine.limits,
       .max_ttl_s = app.config.contexts.max_ttl_s,
       .strict = app.config.http.strict_params}));
}

Reply embeddings(App&, const HttpRequest&) {
  return absl::UnimplementedError("/v1/embeddings: this server generates text only");
}

Reply tokenize(App& app, const HttpRequest& request) {
  ASSIGN_OR_RETURN(Json body, parse_json_object(request.body, app.config.http.json));
  const JsonRelease release(&body);
  ASSIGN_OR_RETURN(const TokenizeCall call, parse_tokenize(body, parse_options(app)));
  const auto ids = app.engine->tokenize(call.prompt, call.add_special_tokens);
  if (!ids.ok()) return ids.status();
  Json token_strs = nullptr;
  if (call.return_token_strs) {
    token_strs = Json::array();
    for (const int32_t id : *ids) token_strs.push_back(app.engine->token_text(id));
  }
  return json_reply({{"count", ids->size()},
                     {"max_model_len", app.engine->info().max_model_len},
                     {"tokens", *ids},
                     {"token_strs", std::move(token_strs)}});
}

// The engine knows the ids of prompts only.
absl::Status check_tokens(const std::vector<int32_t>& ids, int64_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return invalid_field("tokens",
                         absl::StrCat("tokens[", i, "] is ", ids[i], ", must be a token id in [0, ",
                                      vocab_size - 1, "]"));
  }
  return absl::OkStatus();
}

Reply detokenize(App& app, const HttpRequest& request) {
  ASSIGN_OR_RETURN(Json body, parse_json_object(request.body, app.config.http.json));
  const JsonRelease release(&body);
  ASSIGN_OR_RETURN(const auto ids, parse_detokenize(body, parse_options(app)));
  RETURN_IF_ERROR(check_tokens(ids, app.engine->info().vocab_size));
  ASSIGN_OR_RETURN(const std::string text, app.engine->detokenize(ids));
  return json_reply({{"prompt", text}});
}

constexpr bool kOpen = true;
constexpr bool kKeyed = false;

constexpr Route kRoutes[] = {
    {"POST", "/v1/completions", kKeyed, nullptr, OpenAiApi::kCompletion},
    {"POST", "/v1/chat/completions", kKeyed, nullptr, OpenAiApi::kChat},
    {"POST", "/v1/completions/render", kKeyed, render_completion, {}},
    {"POST", "/v1/chat/completions/render", kKeyed, render_chat, {}},
    {"GET", "/v1/models", kKeyed, models, {}},
    {"GET", "/v1/models/{id}", kKeyed, model, {}},
    {"POST", "/v1/contexts", kKeyed, create_context, {}},
    {"GET", "/v1/contexts", kKeyed, list_contexts, {}},
    {"POST", "/v1/contexts/{id}/parts", kKeyed, add_context_part, {}},
    {"GET", "/v1/contexts/{id}", kKeyed, get_context, {}},
    {"DELETE", "/v1/contexts/{id}", kKeyed, delete_context, {}},
    {"POST", "/v1/embeddings", kKeyed, embeddings, {}},
    {"POST", "/tokenize", kKeyed, tokenize, {}},
    {"POST", "/detokenize", kKeyed, detokenize, {}},
    {"GET", "/health", kOpen, health, {}},
    {"GET", "/healthz", kOpen, health, {}},
    {"GET", "/ready", kOpen, ready, {}},
    {"GET", "/readyz", kOpen, ready, {}},
    {"GET", "/version", kKeyed, version, {}},
    {"GET", "/load", kKeyed, load, {}},
    {"GET", "/server_info", kKeyed, server_info, {}},
    {"GET", "/config", kKeyed, config, {}},
    {"GET", "/metrics", kKeyed, metrics, {}},
    {"GET", "/openapi.json", kKeyed, openapi, {}},
};

bool matches(absl::string_view pattern, absl::string_view path) {
  const size_t brace = pattern.find('{');
  if (brace == absl::string_view::npos) return path == pattern;
  const absl::string_view end = pattern.substr(pattern.find('}') + 1);
  return absl::StartsWith(path, pattern.substr(0, brace)) && absl::EndsWith(path, end) &&
         path.size() > brace + end.size();
}

}  // namespace

std::span<const Route> routes() { return kRoutes; }

absl::StatusOr<const Route*> find_admin_route(absl::string_view method, absl::string_view path) {
  const absl::StatusOr<const Route*> route = find_route(method, path);
  if (!route.ok() || is_probe(**route)) return route;
  return unknown_route(method, path);
}

absl::StatusOr<const Route*> find_route(absl::string_view method, absl::string_view path) {
  // A GET whose body is not sent: the stream leaves it out.
  const absl::string_view answered_as = method == "HEAD" ? "GET" : method;
  absl::string_view pattern;  // the first that matches: what ends as another's does is that one's
  std::string allowed;
  for (const Route& route : kRoutes) {
    if (pattern.empty() ? !matches(route.path, path) : route.path != pattern) continue;
    if (route.method == answered_as) return &route;
    pattern = route.path;
    const absl::string_view methods = route.method == "GET" ? "GET, HEAD" : route.method;
    absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", methods);
  }
  if (allowed.empty()) return unknown_route(method, path);
  return method_not_allowed(method, path, allowed);
}

}  // namespace pbserve::server
