#include "server/http/server.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "server/http/connection.h"
#include "server/listener.h"
#include "server/run_io.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

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
  explicit Impl(const ServerConfig& config) : io(config.http.io_threads), listener(&io, "HTTP") {}

  void accept();

  std::unique_ptr<ConnectionContext> context;  // outlives the coroutines, which io destroys
  asio::io_context io;
  Listener listener;
  std::vector<std::jthread> threads;
};

void HttpServer::Impl::accept() {
  const auto serve = [this](tcp::socket socket) {
    const auto strand = socket.get_executor();
    asio::co_spawn(strand, serve_connection(std::move(socket), context.get()), log_exception);
  };
  const auto refusal = [this](const std::string& address) {
    return context->app->http_connections.make_room(address);
  };
  listener.accept(serve, refusal);
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::bind(const ServerConfig& config) {
  auto impl = std::make_unique<Impl>(config);
  RETURN_IF_ERROR(impl->listener.bind(config.server.host, config.http.port));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

uint16_t HttpServer::port() const { return impl_->listener.port(); }

absl::Status HttpServer::serve(App* app) {
  impl_->context =
      std::unique_ptr<ConnectionContext>(new ConnectionContext{.app = app, .exchanges = {}});
  RETURN_IF_ERROR(impl_->listener.listen());
  impl_->accept();
  for (int32_t i = 0; i < app->config.http.io_threads; ++i) {
    impl_->threads.emplace_back([this] { run_io(&impl_->io); });
  }
  return absl::OkStatus();
}

void HttpServer::stop(double timeout_s) {
  if (impl_->threads.empty()) return;
  asio::post(impl_->io, [this] { impl_->listener.close(); });
  impl_->context->exchanges.wait_for_none(std::chrono::duration<double>(timeout_s));
  impl_->io.stop();
  impl_->threads.clear();  // joins
}

}  // namespace pbserve::server
