#include "server/http/connection.h"

#include <spdlog/spdlog.h>

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "server/api_error.h"
#include "server/generation.h"
#include "server/http/generate.h"
#include "server/http/routes.h"
#include "server/http/stream.h"
#include "server/request_id.h"
#include "server/run_on_workers.h"

namespace pbserve::server {
namespace {

using boost::asio::awaitable;

constexpr char kRequestId[] = "X-Request-Id";
constexpr size_t kLoggedPathBytes = 200;

// The client's own name for the request, or one of ours.
absl::StatusOr<std::string> request_id_of(const HttpRequest& request) {
  const std::string given = header_or_empty(request, "x-request-id");
  if (given.empty()) return make_request_id();
  RETURN_IF_ERROR(check_request_id(given));
  return given;
}

// What can be refused before the body is read.
absl::StatusOr<const Route*> admit(const App& app, const HttpRequest& request) {
  const absl::StatusOr<const Route*> route = find_route(request.method, request.path);
  if (!route.ok() || !(*route)->is_open) {
    // Before "not found": without a key nobody learns what exists.
    RETURN_IF_ERROR(app.auth.check(header_or_empty(request, "authorization")));
  }
  RETURN_IF_ERROR(route.status());
  // Before a byte of it is read: open routes must not be able to take memory.
  if ((*route)->method != "POST" && request.has_body) {
    return body_not_taken(request.method, request.path);
  }
  const std::string type = absl::AsciiStrToLower(header_or_empty(request, "content-type"));
  if ((*route)->method == "POST" && !type.empty() && !absl::StartsWith(type, "application/json")) {
    return unsupported_media_type(type);
  }
  return route;
}

awaitable<bool> reply_error(HttpStream* stream, const HttpRequest& request, std::string request_id,
                            absl::Status error, bool keep_alive) {
  log_refused(request.path.substr(0, kLoggedPathBytes), request_id, error);
  HttpReply reply = to_http_reply(error);
  reply.headers.emplace_back(kRequestId, std::move(request_id));
  const bool is_written = co_await stream->write_reply(std::move(reply), keep_alive);
  co_return is_written&& keep_alive;
}

// Handlers run on the workers where the work grows with the input.
awaitable<bool> serve_handler(HttpStream* stream, App* app, const Route* route, HttpRequest request,
                              std::string request_id, bool keep_alive) {
  absl::StatusOr<HttpReply> reply;
  if (route->method == "POST") {
    const size_t body_bytes = request.body.size();
    auto work = [app, route, shared = std::make_shared<HttpRequest>(std::move(request))] {
      return route->handler(*app, *shared);
    };
    reply = co_await run_on_workers(&app->workers, body_bytes, std::move(work));
  } else {
    reply = route->handler(*app, request);
  }
  if (!reply.ok()) reply = to_http_reply(reply.status());
  reply->headers.emplace_back(kRequestId, std::move(request_id));
  const bool is_written = co_await stream->write_reply(*std::move(reply), keep_alive);
  co_return is_written&& keep_alive;
}

// False: the connection must be closed.
awaitable<bool> serve_request(HttpStream* stream, ConnectionContext* context, HttpRequest request) {
  App* app = context->app;
  const bool keep_alive = stream->keep_alive() && app->ready;
  absl::StatusOr<std::string> id = request_id_of(request);
  if (!id.ok()) {
    co_return co_await reply_error(stream, request, make_request_id(), id.status(), false);
  }
  const absl::StatusOr<const Route*> route = admit(*app, request);
  if (!route.ok()) {
    // The body, if there is one, has not been read: the connection cannot be used again.
    const bool may_stay = keep_alive && !request.has_body;
    co_return co_await reply_error(stream, request, *std::move(id), route.status(), may_stay);
  }
  const absl::Status body = co_await stream->read_body(&context->bodies, &request);
  if (absl::IsCancelled(body)) co_return false;
  if (!body.ok()) co_return co_await reply_error(stream, request, *std::move(id), body, false);
  if (!(*route)->generates) {
    co_return co_await serve_handler(stream, app, *route, std::move(request), *std::move(id),
                                     keep_alive);
  }
  GenerationExchange exchange{.stream = stream,
                              .app = app,
                              .api = *(*route)->generates,
                              .request = std::move(request),
                              .request_id = *std::move(id),
                              .keep_alive = keep_alive};
  co_return co_await serve_generation(std::move(exchange));
}

// The answer to what read_header() gave. False: the connection must be closed.
awaitable<bool> serve_exchange(HttpStream* stream, ConnectionContext* context,
                               absl::StatusOr<HttpRequest> request) {
  const OpenCount::Scope open_exchange(&context->exchanges);
  absl::Status error = request.status();
  if (request.ok()) {
    try {
      co_return co_await serve_request(stream, context, *std::move(request));
    } catch (const std::bad_alloc&) {
      error = out_of_memory();  // one request's: what it held has gone with it
    }
  }
  if (stream->answer() != HttpStream::Answer::kNone) co_return false;
  // Named: gcc 12 destroys an aggregate that is a temporary of a co_await expression twice.
  const HttpRequest unread;
  co_return co_await reply_error(stream, unread, make_request_id(), error, false);
}

}  // namespace

awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket, ConnectionContext* context) {
  const OpenCount::Scope open_connection(&context->connections);
  const std::shared_ptr<const TlsIdentity> tls = context->app->tls.load();
  HttpStream stream(std::move(socket), context->app->config.http, tls ? tls->context : nullptr);
  if (!co_await stream.handshake()) co_return;
  while (true) {
    absl::StatusOr<HttpRequest> request = co_await stream.read_header();
    if (absl::IsCancelled(request.status())) co_return;
    const bool may_stay = co_await serve_exchange(&stream, context, std::move(request));
    if (!may_stay) co_return co_await stream.close_politely();
  }
}

}  // namespace pbserve::server
