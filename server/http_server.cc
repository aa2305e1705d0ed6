#include "server/http_server.h"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/http_connection.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // after "too many open files"

// The one place where what Asio throws into a coroutine ends: a dropped connection.
void log_exception(std::exception_ptr exception) {
  if (!exception) return;
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& error) {
    spdlog::debug("connection dropped: {}", error.what());
  }
}

}  // namespace

struct HttpServer::Impl {
  explicit Impl(const ServerConfig& config) : io(config.http.io_threads), acceptor(io) {}

  absl::Status bind(const std::string& host, int32_t port);
  awaitable<void> accept_loop();

  std::unique_ptr<ConnectionContext> context;  // outlives the coroutines, which io destroys
  asio::io_context io;
  tcp::acceptor acceptor;
  std::vector<std::jthread> threads;
};

absl::Status HttpServer::Impl::bind(const std::string& host, int32_t port) {
  const auto failed = [&](const error_code& error) {
    return absl::UnavailableError(
        absl::StrCat("HTTP cannot listen on ", host, ":", port, ": ", error.message()));
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

awaitable<void> HttpServer::Impl::accept_loop() {
  asio::steady_timer pause(io);
  while (acceptor.is_open()) {
    // A strand each: the coroutines of one connection never run at once.
    auto [error, socket] = co_await acceptor.async_accept(asio::make_strand(io), kTuple);
    if (error == asio::error::operation_aborted) co_return;
    if (error) {
      spdlog::warn("HTTP accept: {}", error.message());
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(kTuple);
      continue;
    }
    const int32_t limit = context->app->config.http.max_connections;
    if (context->connections.value() >= limit) {
      spdlog::warn("HTTP connection refused: http.max_connections = {} are open", limit);
      continue;  // the socket closes here
    }
    const auto strand = socket.get_executor();
    asio::co_spawn(strand, serve_connection(std::move(socket), context.get()), log_exception);
  }
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::bind(const ServerConfig& config) {
  auto impl = std::make_unique<Impl>(config);
  RETURN_IF_ERROR(impl->bind(config.server.host, config.http.port));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

uint16_t HttpServer::port() const {
  error_code ignored;
  return impl_->acceptor.local_endpoint(ignored).port();
}

absl::Status HttpServer::serve(App* app) {
  impl_->context = std::unique_ptr<ConnectionContext>(
      new ConnectionContext{.app = app,
                            .bodies = ByteBudget(app->config.http.max_buffered_body_bytes),
                            .connections = {},
                            .exchanges = {}});
  error_code error;
  impl_->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return absl::UnavailableError(absl::StrCat("HTTP cannot listen: ", error.message()));
  asio::co_spawn(impl_->io, impl_->accept_loop(), log_exception);
  for (int32_t i = 0; i < app->config.http.io_threads; ++i) {
    impl_->threads.emplace_back([this] { impl_->io.run(); });
  }
  return absl::OkStatus();
}

void HttpServer::stop(double timeout_s) {
  if (impl_->threads.empty()) return;
  asio::post(impl_->io, [this] {
    error_code ignored;
    impl_->acceptor.close(ignored);
  });
  impl_->context->exchanges.wait_for_none(std::chrono::duration<double>(timeout_s));
  impl_->io.stop();
  impl_->threads.clear();  // joins
}

}  // namespace pbserve::server
