#include "server/grpc_acceptor.h"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // after "too many open files"
constexpr auto kLogPause = std::chrono::seconds(5);            // between lines of one kind

// A line that thousands of clients can cause is written now and then, with its count.
class RareLog {
 public:
  void warn(const std::string& text) {
    ++count_;
    const auto now = std::chrono::steady_clock::now();
    if (last_ && now - *last_ < kLogPause) return;
    spdlog::warn("{} ({} times since the last such line)", text, count_);
    last_ = now;
    count_ = 0;
  }

 private:
  std::optional<std::chrono::steady_clock::time_point> last_;
  int64_t count_ = 0;
};

// As GrpcConnections wants it. gRPC takes an IPv4 client of an IPv6 socket for what it is.
std::string name_of(const tcp::endpoint& peer) {
  const asio::ip::address address = peer.address();
  if (address.is_v4()) return absl::StrCat(address.to_string(), ":", peer.port());
  const asio::ip::address_v6 v6 = address.to_v6();
  if (!v6.is_v4_mapped()) return absl::StrCat("[", v6.to_string(), "]:", peer.port());
  const auto v4 = asio::ip::make_address_v4(asio::ip::v4_mapped, v6);
  return absl::StrCat(v4.to_string(), ":", peer.port());
}

}  // namespace

struct GrpcAcceptor::Impl {
  Impl() : io(1), acceptor(io) {}

  absl::Status bind(const std::string& host, int32_t port);
  awaitable<void> accept_loop();
  void take(tcp::socket socket);

  asio::io_context io;
  tcp::acceptor acceptor;
  std::unique_ptr<GrpcConnectionTaker> taker;
  int32_t max_connections = 0;
  GrpcConnections* connections = nullptr;
  RareLog failed_log;
  RareLog full_log;
  std::jthread thread;
};

absl::Status GrpcAcceptor::Impl::bind(const std::string& host, int32_t port) {
  const auto failed = [&](const error_code& error) {
    return absl::UnavailableError(
        absl::StrCat("gRPC cannot listen on ", host, ":", port, ": ", error.message()));
  };
  error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("server.host = ", host, ": must be an IP address such as 0.0.0.0"));
  }
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(port));
  acceptor.open(endpoint.protocol(), error);
  if (error) return failed(error);
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (error) return failed(error);
  acceptor.bind(endpoint, error);
  return error ? failed(error) : absl::OkStatus();
}

void GrpcAcceptor::Impl::take(tcp::socket socket) {
  if (connections->is_full(static_cast<size_t>(max_connections))) {
    full_log.warn(absl::StrCat("gRPC connection refused: grpc.max_connections = ", max_connections,
                               " are open"));
    return;  // the socket closes here
  }
  error_code error;
  const std::string peer = name_of(socket.remote_endpoint(error));
  if (!error) socket.set_option(tcp::no_delay(true), error);
  if (!error) socket.non_blocking(true, error);
  const int descriptor = error ? -1 : socket.release(error);
  if (error) return;  // the peer is gone
  connections->add(peer, descriptor);
  GrpcConnectionTaker::NewConnectionParameters connection;
  connection.listener_fd = acceptor.native_handle();
  connection.fd = descriptor;  // gRPC's from here on
  taker->HandleNewConnection(&connection);
}

awaitable<void> GrpcAcceptor::Impl::accept_loop() {
  asio::steady_timer pause(io);
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(kTuple);
    if (error == asio::error::operation_aborted) co_return;
    if (error) {
      failed_log.warn(absl::StrCat("gRPC accept: ", error.message()));
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(kTuple);
      continue;
    }
    take(std::move(socket));
  }
}

GrpcAcceptor::GrpcAcceptor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

GrpcAcceptor::~GrpcAcceptor() { stop(); }

absl::StatusOr<std::unique_ptr<GrpcAcceptor>> GrpcAcceptor::bind(const std::string& host,
                                                                 int32_t port) {
  auto impl = std::make_unique<Impl>();
  RETURN_IF_ERROR(impl->bind(host, port));
  return std::unique_ptr<GrpcAcceptor>(new GrpcAcceptor(std::move(impl)));
}

uint16_t GrpcAcceptor::port() const {
  error_code ignored;
  return impl_->acceptor.local_endpoint(ignored).port();
}

absl::Status GrpcAcceptor::start(std::unique_ptr<GrpcConnectionTaker> taker,
                                 GrpcConnections* connections, int32_t max_connections) {
  impl_->taker = std::move(taker);
  impl_->connections = connections;
  impl_->max_connections = max_connections;
  error_code error;
  impl_->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return absl::UnavailableError(absl::StrCat("gRPC cannot listen: ", error.message()));
  asio::co_spawn(impl_->io, impl_->accept_loop(), asio::detached);
  impl_->thread = std::jthread([this] { impl_->io.run(); });
  return absl::OkStatus();
}

void GrpcAcceptor::stop() {
  if (!impl_->thread.joinable()) return;
  asio::post(impl_->io, [this] {
    error_code ignored;
    impl_->acceptor.close(ignored);
  });
  impl_->thread.join();
}

}  // namespace pbserve::server
