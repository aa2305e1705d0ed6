#include "server/grpc/server.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <string>
#include <utility>

#include "server/grpc/acceptor.h"
#include "server/grpc/credentials.h"
#include "server/grpc/library_log.h"
#include "server/grpc/service.h"

namespace pbserve::server {
namespace {

// A client may ping this often while a long prefill sends nothing; gRPC's own default answers
// such pings by closing the connection ("too_many_pings").
constexpr int kMinPingIntervalMs = 10000;

// From accept to the client's HTTP/2 preface and settings.
constexpr int kHandshakeTimeoutMs = 10000;

// What gRPC holds besides messages: headers and call states, and what arrives between two looks of
// GrpcConnections.
constexpr int64_t kTransportBytes = 256 << 20;

// For the last bytes of calls that are over. Health watches never end by themselves.
constexpr auto kFlushTime = std::chrono::milliseconds(200);

void set_options(const GrpcOptions& options, int64_t max_buffered_bytes,
                 grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_message_bytes);
  builder->SetMaxSendMessageSize(options.max_message_bytes);
  // A compressed message has no bound on what it becomes.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_calls);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, options.idle_timeout_s * 1000);
  // Probing would widen the window of a stream whose message nobody has asked for yet.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  // The last resort: beyond it gRPC ends calls, and not only those that are at fault.
  grpc::ResourceQuota quota("pbserve");
  quota.Resize(static_cast<size_t>(max_buffered_bytes + kTransportBytes));
  builder->SetResourceQuota(quota);
}

}  // namespace

struct GrpcServer::Impl {
  App* app = nullptr;
  std::unique_ptr<GrpcAcceptor> acceptor;
  std::unique_ptr<GrpcService> service;
  std::unique_ptr<grpc::Server> server;
};

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::bind(const ServerConfig& config) {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->acceptor, GrpcAcceptor::bind(config.server.host, config.grpc.port));
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(impl)));
}

absl::Status GrpcServer::serve(App* app) {
  take_library_log();
  const GrpcOptions& options = app->config.grpc;
  impl_->service = std::make_unique<GrpcService>(app);
  grpc::ServerBuilder builder;
  set_options(options, app->config.server.max_buffered_bytes, &builder);
  builder.RegisterCallbackGenericService(impl_->service.get());
  using Builder = grpc::ServerBuilder::experimental_type;
  auto taker = builder.experimental().AddExternalConnectionAcceptor(
      Builder::ExternalConnectionType::FROM_FD, make_credentials(app));
  impl_->server = builder.BuildAndStart();
  if (impl_->server == nullptr) return absl::InternalError("gRPC does not start");
  impl_->app = app;
  app->readiness.set_listener(
      [health = &impl_->service->health()](bool is_ready) { health->set_serving(is_ready); });
  return impl_->acceptor->start(std::move(taker), &impl_->service->connections());
}

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcServer::~GrpcServer() { stop(0); }

uint16_t GrpcServer::port() const { return impl_->acceptor->port(); }

void GrpcServer::stop(double timeout_s) {
  impl_->acceptor->stop();  // gRPC would leave a connection open that comes after its end
  if (impl_->server == nullptr) return;
  impl_->app->readiness.set_listener(nullptr);
  impl_->service->wait_for_calls(timeout_s);
  impl_->server->Shutdown(std::chrono::system_clock::now() + kFlushTime);
  impl_->server->Wait();
  impl_->service->wait_for_last_calls();
  impl_->server.reset();
}

}  // namespace pbserve::server
