#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>

#include "server/grpc_acceptor.h"
#include "server/grpc_service.h"

namespace pbserve::server {
namespace {

// A client may ping this often while a long prefill sends nothing; gRPC's own default answers
// such pings by closing the connection ("too_many_pings").
constexpr int kMinPingIntervalMs = 10000;

// From accept to the client's HTTP/2 preface and settings.
constexpr int kHandshakeTimeoutMs = 10000;

// For the last bytes of calls that are over. Health watches never end by themselves.
constexpr auto kFlushTime = std::chrono::milliseconds(200);

void set_options(const GrpcOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_message_bytes);
  builder->SetMaxSendMessageSize(options.max_message_bytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_calls);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, options.idle_timeout_s * 1000);
}

}  // namespace

struct GrpcServer::Impl {
  std::unique_ptr<GrpcAcceptor> acceptor;
  std::unique_ptr<GrpcService> methods;
  std::unique_ptr<grpc::Server> server;
};

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::bind(const ServerConfig& config) {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->acceptor, GrpcAcceptor::bind(config.server.host, config.grpc.port));
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(impl)));
}

absl::Status GrpcServer::serve(App* app) {
  const GrpcOptions& options = app->config.grpc;
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  impl_->methods = std::make_unique<GrpcService>(app);
  grpc::ServerBuilder builder;
  set_options(options, &builder);
  builder.RegisterService(impl_->methods.get());
  using Builder = grpc::ServerBuilder::experimental_type;
  auto taker = builder.experimental().AddExternalConnectionAcceptor(
      Builder::ExternalConnectionType::FROM_FD, grpc::InsecureServerCredentials());
  impl_->server = builder.BuildAndStart();
  if (impl_->server == nullptr) return absl::InternalError("gRPC does not start");
  impl_->server->GetHealthCheckService()->SetServingStatus(v1::Inference::service_full_name(),
                                                           /*serving=*/true);
  return impl_->acceptor->start(std::move(taker), options.max_connections);
}

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { stop(0); }

uint16_t GrpcServer::port() const { return impl_->acceptor->port(); }

void GrpcServer::set_not_serving() {
  impl_->server->GetHealthCheckService()->SetServingStatus(/*serving=*/false);
}

void GrpcServer::stop(double timeout_s) {
  impl_->acceptor->stop();  // gRPC would leave a connection open that comes after its end
  if (impl_->server == nullptr) return;
  impl_->methods->wait_for_calls(timeout_s);
  impl_->server->Shutdown(std::chrono::system_clock::now() + kFlushTime);
  impl_->server->Wait();
  impl_->server.reset();
}

}  // namespace pbserve::server
