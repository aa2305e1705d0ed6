#include "server/http/admin_server.h"

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <thread>
#include <utility>

#include "server/api_error.h"
#include "server/http/connections.h"
#include "server/http/routes.h"
#include "server/http/stream.h"
#include "server/listener.h"
#include "server/peer_address.h"
#include "server/run_io.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::awaitable;

constexpr ConnectionLimits kLimits{.key = "connections of the admin port", .in_all = 64};

// Probes send no bodies, and a scraper keeps its connection for the next time.
HttpOptions admin_options() {
  HttpOptions options;
  options.max_header_bytes = 16 << 10;
  options.write_timeout_s = 10;
  return options;
}

// What is known before there is a model: the process lives, and takes no requests.
HttpReply answer_while_loading(const HttpRequest& request) {
  const bool is_alive = request.path == "/health" || request.path == "/healthz";
  if (is_alive) return {.status = 200, .body = R"({"status":"loading"})"};
  return {.status = 503, .body = R"({"status":"not ready","reason":"loading"})"};
}

}  // namespace

struct AdminServer::Impl {
  Impl() : listener(&io, "admin") {}

  HttpReply answer(const HttpRequest& request) const;
  awaitable<void> serve(asio::ip::tcp::socket socket);

  const HttpOptions options = admin_options();
  std::atomic<App*> app = nullptr;
  HttpConnections connections{kLimits};  // outlives the coroutines, which io destroys
  asio::io_context io{1};
  Listener listener;
  std::jthread thread;
};

HttpReply AdminServer::Impl::answer(const HttpRequest& request) const {
  const absl::StatusOr<const Route*> route = find_admin_route(request.method, request.path);
  if (!route.ok()) return to_http_reply(route.status());
  App* const loaded = app;
  if (loaded == nullptr) return answer_while_loading(request);
  absl::StatusOr<HttpReply> reply = (*route)->handler(*loaded, request);
  return reply.ok() ? *std::move(reply) : to_http_reply(reply.status());
}

awaitable<void> AdminServer::Impl::serve(asio::ip::tcp::socket socket) {
  boost::system::error_code ignored;
  std::string address = address_of(socket.remote_endpoint(ignored));
  HttpStream stream(std::move(socket), options);
  HttpConnections::Scope connection(&connections, std::move(address), stream.closer());
  while (true) {
    connection.begin_wait();
    if (!co_await stream.wait_for_request()) co_return;
    const absl::StatusOr<HttpRequest> request = co_await stream.read_header();
    connection.end_wait();
    if (absl::IsCancelled(request.status())) co_return;
    HttpReply reply = request.ok() ? answer(*request) : to_http_reply(request.status());
    const bool may_stay = request.ok() && !request->has_body && stream.keep_alive();
    const bool is_written = co_await stream.write_reply(std::move(reply), may_stay);
    if (is_written && may_stay) continue;
    connection.begin_wait();
    co_return co_await stream.close_politely();
  }
}

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AdminServer::~AdminServer() {
  impl_->io.stop();
  impl_->thread.join();
}

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::start(const ServerConfig& config) {
  auto impl = std::make_unique<Impl>();
  RETURN_IF_ERROR(impl->listener.bind(config.server.host, config.server.admin_port));
  RETURN_IF_ERROR(impl->listener.listen());
  const auto serve = [impl = impl.get()](asio::ip::tcp::socket socket) {
    const auto strand = socket.get_executor();
    asio::co_spawn(strand, impl->serve(std::move(socket)), asio::detached);
  };
  const auto refusal = [impl = impl.get()](const std::string& address) {
    return impl->connections.make_room(address);
  };
  impl->listener.accept(serve, refusal);
  impl->thread = std::jthread([impl = impl.get()] { run_io(&impl->io); });
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

uint16_t AdminServer::port() const { return impl_->listener.port(); }

void AdminServer::set_app(App* app) { impl_->app = app; }

}  // namespace pbserve::server
