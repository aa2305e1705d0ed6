#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/grpc_service.h"

namespace pbserve::server {
namespace {

// A client may ping this often while a long prefill sends nothing; gRPC's own default answers
// such pings by closing the connection ("too_many_pings").
constexpr int kMinPingIntervalMs = 10000;

// For the last bytes of calls that are over. Health watches never end by themselves.
constexpr auto kFlushTime = std::chrono::milliseconds(200);

void set_options(const GrpcOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_message_bytes);
  builder->SetMaxSendMessageSize(options.max_message_bytes);
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a port in use is an error
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_calls);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
}

}  // namespace

struct GrpcServer::Impl {
  explicit Impl(App* app) : methods(app) {}

  GrpcService methods;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::start(App* app) {
  const ServerConfig& config = app->config;
  grpc::EnableDefaultHealthCheckService(true);
  if (config.grpc.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto impl = std::make_unique<Impl>(app);
  grpc::ServerBuilder builder;
  set_options(config.grpc, &builder);
  const std::string host = config.server.host;
  const bool is_ipv6 = host.find(':') != std::string::npos;
  const std::string address = is_ipv6 ? absl::StrCat("[", host, "]:", config.grpc.port)
                                      : absl::StrCat(host, ":", config.grpc.port);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &impl->port);
  builder.RegisterService(&impl->methods);
  impl->server = builder.BuildAndStart();
  if (impl->server == nullptr || impl->port == 0) {
    return absl::UnavailableError(
        absl::StrCat("gRPC cannot listen on ", address, ": the port is in use or not allowed"));
  }
  impl->server->GetHealthCheckService()->SetServingStatus(v1::Inference::service_full_name(),
                                                          /*serving=*/true);
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(impl)));
}

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { stop(0); }

int GrpcServer::port() const { return impl_->port; }

void GrpcServer::set_not_serving() {
  impl_->server->GetHealthCheckService()->SetServingStatus(/*serving=*/false);
}

void GrpcServer::stop(double timeout_s) {
  impl_->methods.wait_for_calls(timeout_s);
  impl_->server->Shutdown(std::chrono::system_clock::now() + kFlushTime);
  impl_->server->Wait();
}

}  // namespace pbserve::server
