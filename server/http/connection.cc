#include "server/http/connection.h"

#include <spdlog/spdlog.h>

#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "server/api_error.h"
#include "server/http/answer.h"
#include "server/http/cors.h"
#include "server/http/generate.h"
#include "server/http/routes.h"
#include "server/http/stream.h"
#include "server/open_request.h"
#include "server/peer_address.h"
#include "server/request_id.h"
#include "server/run_on_workers.h"

namespace pbserve::server {
namespace {

using boost::asio::awaitable;

// Of a head that is whole. The client's own name for the request stays, if it is one.
absl::Status record_head(const HttpRequest& request, OpenRequest* open) {
  open->record.method = request.method.substr(0, kRepeatedBytesMax);
  open->record.route = request.path.substr(0, kRepeatedBytesMax);
  open->record.trace = open->reports().trace_of(header_or_empty(request, "traceparent"));
  const std::string given = header_or_empty(request, "x-request-id");
  if (given.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(check_request_id(given));
  open->set_id(given);
  return absl::OkStatus();
}

// What can be refused before the body is read.
absl::StatusOr<const Route*> admit(App& app, const HttpRequest& request, OpenRequest* open) {
  RequestRecord* const record = &open->record;
  const absl::StatusOr<const Route*> route = find_route(request.method, request.path);
  if (route.ok()) record->handler = std::string((*route)->path);
  if (!route.ok() || !(*route)->is_open) {
    // Before "not found": without a key nobody learns what exists.
    const std::string authorization = header_or_empty(request, "authorization");
    const std::string api_key = header_or_empty(request, "x-api-key");
    RETURN_IF_ERROR(app.auth.check({authorization, api_key}, &record->caller));
  }
  RETURN_IF_ERROR(route.status());
  record->is_probe = is_probe(**route);
  record->generates = (*route)->generates.has_value();
  // Before a byte of it is read: open routes must not be able to take memory.
  if ((*route)->method != "POST" && request.has_body) {
    return body_not_taken(request.method, request.path);
  }
  const std::string type = absl::AsciiStrToLower(header_or_empty(request, "content-type"));
  if ((*route)->method == "POST" && !type.empty() && !absl::StartsWith(type, "application/json")) {
    return unsupported_media_type(type);
  }
  if ((*route)->generates) {
    RETURN_IF_ERROR(app.engine->check_queue());
    RETURN_IF_ERROR(open->slot.take(record->caller.key_use));
  }
  return route;
}

// Handlers run on the workers where the work grows with the input.
awaitable<bool> serve_handler(HttpStream* stream, App* app, const Route* route, HttpRequest request,
                              OpenRequest* open, bool keep_alive) {
  absl::StatusOr<HttpReply> reply;
  if (route->method == "POST") {
    const size_t body_bytes = request.body.size();
    auto work = [app, route, shared = std::make_shared<HttpRequest>(std::move(request))] {
      return route->handler(*app, *shared);
    };
    reply = co_await run_on_workers(&app->workers, body_bytes, std::move(work));
  } else {
    reply = run_caught([&] { return route->handler(*app, request); });
  }
  ByteBudget::Lease unread(&app->buffers);
  if (reply.ok() && !unread.grow_to_response(std::ssize(reply->body))) {
    reply = buffers_full("the answer", app->buffers.limit_bytes());
  }
  if (!reply.ok()) co_return co_await write_error(stream, open, reply.status(), keep_alive);
  open->succeed(reply->status);
  co_return co_await write_answer(stream, open, *std::move(reply), keep_alive);
}

// False: the connection must be closed.
awaitable<bool> serve_request(HttpStream* stream, ConnectionContext* context, HttpRequest request,
                              std::shared_ptr<OpenRequest> open) {
  App* app = context->app;
  const bool keep_alive = stream->keep_alive() && !app->readiness.is_draining();
  const ServerOptions& options = app->config.server;
  stream->set_headers(cors_headers(options, header_or_empty(request, "origin")));
  const absl::Status head = record_head(request, open.get());
  if (!head.ok()) co_return co_await write_error(stream, open.get(), head, false);
  if (std::optional<HttpReply> reply = preflight_reply(options, request)) {
    open->succeed(reply->status);
    const bool may_stay = keep_alive && !request.has_body;
    co_return co_await write_answer(stream, open.get(), *std::move(reply), may_stay);
  }
  const absl::StatusOr<const Route*> route = admit(*app, request, open.get());
  if (!route.ok()) {
    // The body, if there is one, has not been read: the connection cannot be used again.
    const bool may_stay = keep_alive && !request.has_body;
    co_return co_await write_error(stream, open.get(), route.status(), may_stay);
  }
  const absl::Status body = co_await stream->read_body(&app->buffers, &request);
  if (absl::IsCancelled(body)) co_return false;
  if (!body.ok()) {
    open->slot.give_back();
    co_return co_await write_error(stream, open.get(), body, false);
  }
  request.caller = open->record.caller;
  open->record.bytes_in = static_cast<int64_t>(request.body.size());
  if (!(*route)->generates) {
    co_return co_await serve_handler(stream, app, *route, std::move(request), open.get(),
                                     keep_alive);
  }
  GenerationExchange exchange{.stream = stream,
                              .app = app,
                              .api = *(*route)->generates,
                              .request = std::move(request),
                              .open = std::move(open),
                              .keep_alive = keep_alive};
  co_return co_await serve_generation(std::move(exchange));
}

// The answer to what read_header() gave. False: the connection must be closed.
awaitable<bool> serve_exchange(HttpStream* stream, ConnectionContext* context,
                               absl::StatusOr<HttpRequest> request,
                               std::shared_ptr<OpenRequest> open) {
  const OpenCount::Scope open_exchange(&context->exchanges);
  absl::Status error = request.status();
  if (request.ok()) {
    try {
      co_return co_await serve_request(stream, context, *std::move(request), open);
    } catch (const std::bad_alloc&) {
      error = out_of_memory();  // one request's: what it held has gone with it
    }
  }
  open->fail(error);
  if (stream->answer() != HttpStream::Answer::kNone) co_return false;
  co_return co_await write_error(stream, open.get(), error, false);
}

}  // namespace

awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket, ConnectionContext* context) {
  boost::system::error_code ignored;
  const std::string address = address_of(socket.remote_endpoint(ignored));
  const std::shared_ptr<const TlsIdentity> tls = context->app->tls.load();
  HttpStream stream(std::move(socket), context->app->config.http, tls ? tls->context : nullptr);
  HttpConnections::Scope connection(&context->app->http_connections, address, stream.closer());
  connection.begin_wait();
  if (!co_await stream.handshake()) co_return;
  while (true) {
    connection.begin_wait();
    if (!co_await stream.wait_for_request()) co_return;
    absl::StatusOr<HttpRequest> request = co_await stream.read_header();
    connection.end_wait();  // a byte now and then is no request yet
    if (absl::IsCancelled(request.status())) co_return;
    auto open = std::make_shared<OpenRequest>(Transport::kHttp, context->app->reports, address);
    const bool may_stay =
        co_await serve_exchange(&stream, context, std::move(request), std::move(open));
    if (may_stay) continue;
    connection.begin_wait();  // for the peer to read
    co_return co_await stream.close_politely();
  }
}

}  // namespace pbserve::server
