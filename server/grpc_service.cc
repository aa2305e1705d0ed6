#include "server/grpc_service.h"

#include <memory>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/api_error.h"
#include "server/grpc_convert.h"
#include "server/grpc_generate.h"
#include "server/grpc_status.h"

namespace pbserve::server {
namespace {

// Ends a refused Generate call at once.
class RefusedReactor : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  explicit RefusedReactor(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

absl::Status tokenize(const App& app, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse* response) {
  ASSIGN_OR_RETURN(const engine::Prompt prompt, prompt_from_proto(request, app.config.http.json));
  // A template writes its own special tokens.
  const bool adds_special =
      request.has_add_special_tokens() ? request.add_special_tokens() : request.has_text();
  const auto ids = app.engine->tokenize(prompt, adds_special);
  if (!ids.ok()) return with_field_of_message(ids.status());
  response->mutable_ids()->Add(ids->begin(), ids->end());
  if (request.return_token_strs()) {
    for (const int32_t id : *ids) response->add_token_strs(app.engine->token_text(id));
  }
  response->set_max_model_len(app.engine->info().max_model_len);
  return absl::OkStatus();
}

}  // namespace

absl::Status GrpcService::admit(const grpc::CallbackServerContext& context) const {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find("authorization");
  const absl::string_view authorization =
      found == metadata.end() ? absl::string_view()
                              : absl::string_view(found->second.data(), found->second.size());
  RETURN_IF_ERROR(app_->auth.check(authorization));
  if (const int32_t limit = app_->config.grpc.max_calls; calls_.value() >= limit) {
    return absl::ResourceExhaustedError(absl::StrCat("grpc.max_calls = ", limit, " are open"));
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* GrpcService::run_unary(grpc::CallbackServerContext* context,
                                                 size_t work_bytes,
                                                 std::function<absl::Status()> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (const absl::Status status = admit(*context); !status.ok()) {
    reactor->Finish(to_grpc(status));
    return reactor;
  }
  const auto scope = std::make_shared<OpenCount::Scope>(&calls_);
  app_->workers.post(
      work_bytes, [reactor, scope, work = std::move(work)] { reactor->Finish(to_grpc(work())); });
  return reactor;
}

grpc::ServerWriteReactor<v1::GenerateEvent>* GrpcService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  if (const absl::Status status = admit(*context); !status.ok()) {
    return new RefusedReactor(to_grpc(status));
  }
  return GenerateReactor::start(app_, context, request, &calls_);
}

grpc::ServerUnaryReactor* GrpcService::Tokenize(grpc::CallbackServerContext* context,
                                                const v1::TokenizeRequest* request,
                                                v1::TokenizeResponse* response) {
  return run_unary(context, request->ByteSizeLong(),
                   [this, request, response] { return tokenize(*app_, *request, response); });
}

grpc::ServerUnaryReactor* GrpcService::Detokenize(grpc::CallbackServerContext* context,
                                                  const v1::DetokenizeRequest* request,
                                                  v1::DetokenizeResponse* response) {
  return run_unary(context, request->ByteSizeLong(), [this, request, response]() -> absl::Status {
    const std::span<const int32_t> ids(request->ids().data(),
                                       static_cast<size_t>(request->ids_size()));
    ASSIGN_OR_RETURN(*response->mutable_text(), app_->engine->detokenize(ids));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* GrpcService::ListModels(grpc::CallbackServerContext* context,
                                                  const v1::ListModelsRequest*,
                                                  v1::ListModelsResponse* response) {
  return run_unary(context, 0, [this, response] {
    v1::Model* model = response->add_models();
    model->set_id(app_->engine->info().model_name);
    model->set_max_model_len(app_->engine->info().max_model_len);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* GrpcService::GetServerInfo(grpc::CallbackServerContext* context,
                                                     const v1::GetServerInfoRequest*,
                                                     v1::GetServerInfoResponse* response) {
  return run_unary(context, 0, [this, response] {
    fill(app_->engine->info(), response);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* GrpcService::GetLoad(grpc::CallbackServerContext* context,
                                               const v1::GetLoadRequest*,
                                               v1::GetLoadResponse* response) {
  return run_unary(context, 0, [this, response] {
    const engine::EngineLoad load = app_->engine->load();
    response->set_num_running(load.num_running);
    response->set_num_waiting(load.num_waiting);
    response->set_num_pages_used(load.num_pages_used);
    response->set_num_pages_cached(load.num_pages_cached);
    response->set_num_pages(app_->engine->info().num_pages);
    return absl::OkStatus();
  });
}

}  // namespace pbserve::server
