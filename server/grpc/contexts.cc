#include "server/grpc/contexts.h"

#include <utility>

#include "server/api_error.h"
#include "server/grpc/convert.h"
#include "server/grpc/message.h"

namespace pbserve::server {
namespace {

constexpr const char* kNoParts = "the call ended without a header and without a part";

void fill(const ContextInfo& info, v1::Context* message) {
  message->set_id(info.id);
  message->set_name(info.name);
  message->set_ready(info.is_ready);
  message->set_created_s(info.created_s);
  message->set_expires_s(info.expires_s);
  message->set_ttl_s(info.ttl_s);
  message->set_parts(info.num_parts);
  message->set_tokens(info.num_tokens);
  message->set_tail_bytes(info.num_tail_bytes);
  message->set_prefilled_tokens(info.prefilled_tokens);
  message->set_bytes(info.bytes);
}

}  // namespace

CreateContextCall::CreateContextCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
                                     GrpcCallOptions options)
    : GrpcCall(context, call, std::move(options)) {}

CreateContextCall::~CreateContextCall() { drop(); }

void CreateContextCall::drop() {
  if (id_.empty()) return;
  (void)context_->app->contexts.remove(request_->record.caller, std::exchange(id_, {}));
}

// Before the client hears of the end: then it is gone.
void CreateContextCall::fail(const absl::Status& status) {
  drop();
  finish(status);
}

absl::Status CreateContextCall::begin(const v1::ContextHeader& message) {
  const std::string& model = context_->app->engine->info().model_name;
  if (!message.model().empty() && message.model() != model) {
    return model_not_found(message.model().substr(0, kRepeatedBytesMax));
  }
  ASSIGN_OR_RETURN(const ContextHeader header, from_proto(message));
  ASSIGN_OR_RETURN(const ContextInfo info,
                   context_->app->contexts.create(request_->record.caller, header, {}));
  id_ = info.id;
  return absl::OkStatus();
}

absl::Status CreateContextCall::take(grpc::ByteBuffer* bytes) {
  App* app = context_->app;
  MessageMemory memory(&app->buffers);
  ASSIGN_OR_RETURN(const v1::CreateContextRequest* message,
                   memory.parse<v1::CreateContextRequest>(bytes));
  if (message->has_header()) {
    if (!id_.empty()) return invalid_field("header", "header must come first, and once");
    return begin(message->header());
  }
  ContextStore::Part part;
  if (message->has_text()) {
    part.prompt = message->text();
  } else if (message->has_token_ids()) {
    const auto& ids = message->token_ids().ids();
    RETURN_IF_ERROR(check_count("token_ids", ids.size(), app->config.http.json));
    part.prompt = std::vector<int32_t>(ids.begin(), ids.end());
  } else {
    return invalid_field("part", "part is missing: set header, text or token_ids");
  }
  if (id_.empty()) RETURN_IF_ERROR(begin({}));
  return app->contexts.append(request_->record.caller, id_, std::move(part)).status();
}

void CreateContextCall::serve(grpc::ByteBuffer* bytes) {
  if (const absl::Status status = take(bytes); !status.ok()) return fail(status);
  read();
}

void CreateContextCall::end_messages() {
  if (id_.empty()) return finish(absl::InvalidArgumentError(kNoParts));
  const auto self = std::static_pointer_cast<CreateContextCall>(shared_from_this());
  context_->app->workers.post(0, [self] { self->guard([&self] { self->complete(); }); });
}

void CreateContextCall::complete() {
  const WorkerPool& workers = context_->app->workers;
  if (workers.refuses()) return fail(workers.refusal());
  const absl::StatusOr<ContextInfo> info =
      context_->app->contexts.append(request_->record.caller, id_, {.prompt = {}, .is_last = true});
  if (!info.ok()) return fail(info.status());
  id_.clear();
  v1::Context response;
  fill(*info, &response);
  reply(to_bytes(response));
}

absl::Status get_context(App& app, const Caller& caller, const v1::GetContextRequest& request,
                         v1::Context* response) {
  ASSIGN_OR_RETURN(const ContextInfo info, app.contexts.get(caller, request.id()));
  fill(info, response);
  return absl::OkStatus();
}

absl::Status list_contexts(App& app, const Caller& caller, const v1::ListContextsRequest&,
                           v1::ListContextsResponse* response) {
  for (const ContextInfo& info : app.contexts.list(caller)) {
    fill(info, response->add_contexts());
  }
  return absl::OkStatus();
}

absl::Status delete_context(App& app, const Caller& caller, const v1::DeleteContextRequest& request,
                            v1::DeleteContextResponse*) {
  return app.contexts.remove(caller, request.id());
}

}  // namespace pbserve::server
