// Named contexts over gRPC: one made out of a stream of parts, and what is asked about them.
#pragma once

#include <string>

#include "proto/inference.pb.h"
#include "server/caller.h"
#include "server/grpc/call.h"

namespace pbserve::server {

// Reads part after part; the end of the client's side is the end of the context. A call that ends
// in any other way takes what it has made with it.
class CreateContextCall : public GrpcCall {
 public:
  CreateContextCall(GrpcContext* context, grpc::GenericCallbackServerContext* call,
                    GrpcCallOptions options);
  ~CreateContextCall() override;

 private:
  void serve(grpc::ByteBuffer* bytes) override;
  void end_messages() override;
  void complete();  // on a worker

  absl::Status take(grpc::ByteBuffer* bytes);
  // Makes the context, unless there is one.
  absl::Status begin(const v1::ContextHeader& header);
  void fail(const absl::Status& status);
  void drop();

  std::string id_;  // of the context; empty before there is one, and once it is whole or dropped
};

absl::Status get_context(App& app, const Caller& caller, const v1::GetContextRequest& request,
                         v1::Context* response);
absl::Status list_contexts(App& app, const Caller& caller, const v1::ListContextsRequest& request,
                           v1::ListContextsResponse* response);
absl::Status delete_context(App& app, const Caller& caller, const v1::DeleteContextRequest& request,
                            v1::DeleteContextResponse* response);

}  // namespace pbserve::server
