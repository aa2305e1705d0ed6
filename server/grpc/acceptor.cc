#include "server/grpc/acceptor.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <thread>
#include <utility>

#include "server/listener.h"
#include "server/peer_address.h"
#include "server/run_io.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

}  // namespace

struct GrpcAcceptor::Impl {
  Impl() : io(1), listener(&io, "gRPC") {}

  void take(tcp::socket socket);

  asio::io_context io;
  Listener listener;
  std::unique_ptr<GrpcConnectionTaker> taker;
  GrpcConnections* connections = nullptr;
  std::jthread thread;
};

void GrpcAcceptor::Impl::take(tcp::socket socket) {
  error_code error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  if (!error) socket.set_option(tcp::no_delay(true), error);
  if (!error) socket.non_blocking(true, error);
  if (error) return;  // the peer is gone
  connections->add(connection_name(peer), address_of(peer), socket.native_handle());
  const int descriptor = socket.release(error);  // what may throw has been done: it has an owner
  if (error) return;
  GrpcConnectionTaker::NewConnectionParameters connection;
  connection.listener_fd = listener.descriptor();
  connection.fd = descriptor;  // gRPC's from here on
  taker->HandleNewConnection(&connection);
}

GrpcAcceptor::GrpcAcceptor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcAcceptor::~GrpcAcceptor() { stop(); }

absl::StatusOr<std::unique_ptr<GrpcAcceptor>> GrpcAcceptor::bind(const std::string& host,
                                                                 int32_t port) {
  auto impl = std::make_unique<Impl>();
  RETURN_IF_ERROR(impl->listener.bind(host, port));
  return std::unique_ptr<GrpcAcceptor>(new GrpcAcceptor(std::move(impl)));
}

uint16_t GrpcAcceptor::port() const { return impl_->listener.port(); }

absl::Status GrpcAcceptor::start(std::unique_ptr<GrpcConnectionTaker> taker,
                                 GrpcConnections* connections) {
  impl_->taker = std::move(taker);
  impl_->connections = connections;
  RETURN_IF_ERROR(impl_->listener.listen());
  const auto serve = [impl = impl_.get()](tcp::socket socket) { impl->take(std::move(socket)); };
  const auto refusal = [connections](const std::string& address) {
    return connections->make_room(address);
  };
  impl_->listener.accept(serve, refusal);
  impl_->thread = std::jthread([this] { run_io(&impl_->io); });
  return absl::OkStatus();
}

void GrpcAcceptor::stop() {
  if (!impl_->thread.joinable()) return;
  asio::post(impl_->io, [this] { impl_->listener.close(); });
  impl_->thread.join();
}

}  // namespace pbserve::server
