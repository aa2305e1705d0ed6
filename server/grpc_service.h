// The methods of pbserve.v1.Inference. Every one checks key and load first; what grows with its
// input runs on the workers.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>

#include "proto/inference.grpc.pb.h"
#include "server/app.h"
#include "server/open_count.h"

namespace pbserve::server {

class GrpcService : public v1::Inference::CallbackService {
 public:
  explicit GrpcService(App* app) : app_(app) {}

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;

  // False: calls were open still after `timeout_s`.
  bool wait_for_calls(double timeout_s) {
    return calls_.wait_for_none(std::chrono::duration<double>(timeout_s));
  }

 private:
  absl::Status admit(const grpc::CallbackServerContext& context) const;
  // Runs `work` on a worker and ends the call with its status.
  grpc::ServerUnaryReactor* run_unary(grpc::CallbackServerContext* context, size_t work_bytes,
                                      std::function<absl::Status()> work);

  App* const app_;
  OpenCount calls_;
};

}  // namespace pbserve::server
