#include "server/grpc/service.h"

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/api_error.h"
#include "server/grpc/contexts.h"
#include "server/grpc/convert.h"
#include "server/grpc/generate.h"
#include "server/grpc/message.h"
#include "server/grpc/reflection.h"
#include "server/grpc/status.h"
#include "server/open_request.h"
#include "server/peer_address.h"

namespace pbserve::server {
namespace {

// Of a message to a method that needs no key: a few bytes that come with the call's metadata.
constexpr std::chrono::seconds kOpenReceiveTimeout(1);

// Ends a call at once.
class RefusedCall : public grpc::ServerGenericBidiReactor {
 public:
  explicit RefusedCall(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

// One message in, one out.
class UnaryCall : public GrpcCall {
 public:
  using Work = std::function<absl::StatusOr<grpc::ByteBuffer>(grpc::ByteBuffer*)>;

  UnaryCall(Work work, GrpcContext* context, grpc::GenericCallbackServerContext* call,
            GrpcCallOptions options)
      : GrpcCall(context, call, std::move(options)), work_(std::move(work)) {}

 private:
  void serve(grpc::ByteBuffer* message) override {
    absl::StatusOr<grpc::ByteBuffer> response = work_(message);
    if (!response.ok()) return finish(response.status());
    reply(*std::move(response));
  }

  const Work work_;
};

absl::Status tokenize(const App& app, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse* response) {
  ASSIGN_OR_RETURN(const engine::Prompt prompt, prompt_from_proto(request, app.config.http.json));
  // A template writes its own special tokens.
  const bool adds_special =
      request.has_add_special_tokens() ? request.add_special_tokens() : request.has_text();
  const auto ids = app.engine->tokenize(prompt, adds_special);
  if (!ids.ok()) return ids.status();
  response->mutable_ids()->Add(ids->begin(), ids->end());
  if (request.return_token_strs()) {
    RETURN_IF_ERROR(check_count("return_token_strs", std::ssize(*ids), app.config.http.json));
    for (const int32_t id : *ids) response->add_token_strs(app.engine->token_text(id));
  }
  response->set_max_model_len(app.engine->info().max_model_len);
  return absl::OkStatus();
}

absl::Status detokenize(const App& app, const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse* response) {
  RETURN_IF_ERROR(check_count("ids", request.ids_size(), app.config.http.json));
  const std::span<const int32_t> ids(request.ids().data(), static_cast<size_t>(request.ids_size()));
  ASSIGN_OR_RETURN(*response->mutable_text(), app.engine->detokenize(ids));
  return absl::OkStatus();
}

absl::Status list_models(const App& app, const v1::ListModelsRequest&,
                         v1::ListModelsResponse* response) {
  v1::Model* model = response->add_models();
  model->set_id(app.engine->info().model_name);
  model->set_max_model_len(app.engine->info().max_model_len);
  return absl::OkStatus();
}

absl::Status get_server_info(const App& app, const v1::GetServerInfoRequest&,
                             v1::GetServerInfoResponse* response) {
  fill(app.engine->info(), response);
  return absl::OkStatus();
}

absl::Status get_load(const App& app, const v1::GetLoadRequest&, v1::GetLoadResponse* response) {
  const engine::EngineLoad load = app.engine->load();
  response->set_num_running(load.num_running);
  response->set_num_waiting(load.num_waiting);
  response->set_num_pages_used(load.num_pages_used);
  response->set_num_pages_cached(load.num_pages_cached);
  response->set_num_pages(app.engine->info().num_pages);
  return absl::OkStatus();
}

struct Method {
  using Make = std::function<std::shared_ptr<GrpcCall>(
      GrpcContext*, GrpcHealth*, grpc::GenericCallbackServerContext*, GrpcCallOptions)>;

  absl::string_view path;
  bool is_open;    // needs no API key
  bool is_queued;  // waits in the engine's queue
  bool is_cheap;   // no work to speak of: answers to the end of a drain
  OpenCount GrpcContext::*count;
  Make make;
};

// A method that turns one message into another.
template <class Request, class Response>
Method::Make unary(absl::Status (*work)(const App&, const Request&, Response*)) {
  return [work](GrpcContext* context, GrpcHealth*, grpc::GenericCallbackServerContext* call,
                GrpcCallOptions options) -> std::shared_ptr<GrpcCall> {
    const auto run = [work, context](grpc::ByteBuffer* bytes) -> absl::StatusOr<grpc::ByteBuffer> {
      MessageMemory memory(&context->app->buffers);
      ASSIGN_OR_RETURN(const Request* request, memory.parse<Request>(bytes));
      Response response;
      RETURN_IF_ERROR(work(*context->app, *request, &response));
      return to_bytes(response);
    };
    return std::make_shared<UnaryCall>(run, context, call, std::move(options));
  };
}

// One whose answer depends on who asks.
template <class Request, class Response>
Method::Make unary(absl::Status (*work)(App&, const Caller&, const Request&, Response*)) {
  return [work](GrpcContext* context, GrpcHealth*, grpc::GenericCallbackServerContext* call,
                GrpcCallOptions options) -> std::shared_ptr<GrpcCall> {
    const auto run = [work, context, request = options.request](
                         grpc::ByteBuffer* bytes) -> absl::StatusOr<grpc::ByteBuffer> {
      MessageMemory memory(&context->app->buffers);
      ASSIGN_OR_RETURN(const Request* message, memory.parse<Request>(bytes));
      Response response;
      RETURN_IF_ERROR(work(*context->app, request->record.caller, *message, &response));
      return to_bytes(response);
    };
    return std::make_shared<UnaryCall>(run, context, call, std::move(options));
  };
}

template <class Call>
std::shared_ptr<GrpcCall> make_call(GrpcContext* context, GrpcHealth* health,
                                    grpc::GenericCallbackServerContext* call,
                                    GrpcCallOptions options) {
  if constexpr (std::is_same_v<Call, HealthWatch>) {
    return std::make_shared<Call>(health, context, call, std::move(options));
  } else {
    return std::make_shared<Call>(context, call, std::move(options));
  }
}

std::shared_ptr<GrpcCall> make_check(GrpcContext* context, GrpcHealth* health,
                                     grpc::GenericCallbackServerContext* call,
                                     GrpcCallOptions options) {
  const auto run = [health](grpc::ByteBuffer* bytes) { return check_health(*health, bytes); };
  return std::make_shared<UnaryCall>(run, context, call, std::move(options));
}

const Method* find_method(absl::string_view path) {
  constexpr bool kOpen = true;
  constexpr bool kKeyed = false;
  constexpr bool kQueued = true;
  constexpr bool kAtOnce = false;
  constexpr bool kCheap = true;
  constexpr bool kWork = false;
  constexpr auto calls = &GrpcContext::calls;
  static const Method methods[] = {
      {"/pbserve.v1.Inference/Generate", kKeyed, kQueued, kWork, calls, make_call<GenerateCall>},
      {"/pbserve.v1.Inference/CreateContext", kKeyed, kAtOnce, kWork, &GrpcContext::watches,
       make_call<CreateContextCall>},
      {"/pbserve.v1.Inference/GetContext", kKeyed, kAtOnce, kCheap, calls, unary(get_context)},
      {"/pbserve.v1.Inference/ListContexts", kKeyed, kAtOnce, kCheap, calls, unary(list_contexts)},
      {"/pbserve.v1.Inference/DeleteContext", kKeyed, kAtOnce, kCheap, calls,
       unary(delete_context)},
      {"/pbserve.v1.Inference/Tokenize", kKeyed, kAtOnce, kWork, calls, unary(tokenize)},
      {"/pbserve.v1.Inference/Detokenize", kKeyed, kAtOnce, kWork, calls, unary(detokenize)},
      {"/pbserve.v1.Inference/ListModels", kKeyed, kAtOnce, kCheap, calls, unary(list_models)},
      {"/pbserve.v1.Inference/GetServerInfo", kKeyed, kAtOnce, kCheap, calls,
       unary(get_server_info)},
      {"/pbserve.v1.Inference/GetLoad", kKeyed, kAtOnce, kCheap, calls, unary(get_load)},
      {"/grpc.health.v1.Health/Check", kOpen, kAtOnce, kCheap, &GrpcContext::checks, make_check},
      {"/grpc.health.v1.Health/Watch", kOpen, kAtOnce, kCheap, &GrpcContext::watches,
       make_call<HealthWatch>},
      {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kKeyed, kAtOnce, kCheap,
       &GrpcContext::watches, make_call<ReflectionCall>},
  };
  for (const Method& method : methods) {
    if (method.path == path) return &method;
  }
  return nullptr;
}

// The first value of that name, or empty.
absl::string_view metadata(const grpc::CallbackServerContext& call, const char* name) {
  const auto found = call.client_metadata().find(name);
  if (found == call.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

absl::Status check_key(const App& app, const grpc::CallbackServerContext& call, Caller* caller) {
  for (const char* name : {"authorization", "x-api-key"}) {  // as HTTP refuses them
    if (call.client_metadata().count(name) > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("the metadata ", name, " must not be repeated"));
    }
  }
  return app.auth.check({metadata(call, "authorization"), metadata(call, "x-api-key")}, caller);
}

absl::Status admit(const App& app, const grpc::GenericCallbackServerContext& call,
                   const Method* method, const OpenCount& count, OpenRequest* request) {
  Caller* const caller = &request->record.caller;
  // Before "no such method": without a key nobody learns what exists.
  if (method == nullptr || !method->is_open) RETURN_IF_ERROR(check_key(app, call, caller));
  if (method == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("no method ", call.method().substr(0, kRepeatedBytesMax)));
  }
  if (const int32_t limit = app.config.grpc.max_calls; count.value() >= limit) {
    return absl::ResourceExhaustedError(absl::StrCat("grpc.max_calls = ", limit, " are open"));
  }
  if (!method->is_queued) return absl::OkStatus();
  RETURN_IF_ERROR(app.engine->check_queue());
  return request->slot.take(caller->key_use);
}

ConnectionLimits limits_of(const ServerConfig& config) {
  return {.key = "grpc.max_connections",
          .in_all = config.grpc.max_connections,
          .per_address = config.server.max_connections_per_address};
}

}  // namespace

GrpcService::GrpcService(App* app)
    : context_{
          .app = app,
          .calls = {},
          .checks = {},
          .watches = {},
          .heap = {},
          .connections = std::make_shared<GrpcConnections>(&app->buffers, limits_of(app->config))} {
  app->grpc_connections = context_.connections;
}

GrpcService::~GrpcService() { context_.connections->stop(); }

grpc::ServerGenericBidiReactor* GrpcService::CreateReactor(
    grpc::GenericCallbackServerContext* call) {
  const GrpcOptions& limits = context_.app->config.grpc;
  const Method* method = find_method(call->method());
  if (!limits.reflection && absl::StartsWith(call->method(), "/grpc.reflection.")) method = nullptr;
  OpenCount& count = method == nullptr ? context_.calls : context_.*method->count;
  const auto request = std::make_shared<OpenRequest>(Transport::kGrpc, context_.app->reports,
                                                     address_of_peer(call->peer()));
  RequestRecord& record = request->record;
  record.route = std::string(absl::StripPrefix(call->method(), "/").substr(0, kRepeatedBytesMax));
  record.handler = std::string(method != nullptr ? method->path.substr(1) : "");
  record.is_probe = method != nullptr && method->is_open;
  record.generates = method != nullptr && method->is_queued;
  record.trace = request->reports().trace_of(metadata(*call, "traceparent"));
  const absl::Status status = admit(*context_.app, *call, method, count, request.get());
  if (!status.ok()) {
    request->fail(status);
    return new RefusedCall(to_grpc(status));
  }
  const std::chrono::seconds timeout(limits.receive_timeout_s);
  GrpcCallOptions options{.request = request,
                          .count = &count,
                          .needs_key = !method->is_open,
                          .is_cheap = method->is_cheap,
                          .receive_timeout = method->is_open ? kOpenReceiveTimeout : timeout};
  const std::shared_ptr<GrpcCall> reactor =
      method->make(&context_, &health_, call, std::move(options));
  reactor->start();
  return reactor.get();
}

}  // namespace pbserve::server
