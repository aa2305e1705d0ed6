#include "server/http/stream.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/http/head.h"
#include "server/http/socket_timers.h"
#include "server/http/transport.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::awaitable;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::seconds;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadAheadBytes = 64 << 10;  // of pipelined requests, while a response runs
constexpr size_t kHeadReadBytes = 4 << 10;    // at once: heads are small
constexpr size_t kBodyReadBytes = 64 << 10;
// Of a request that has been let in. Before that the buffer is bounded by the head's limit.
constexpr int64_t kFreeBufferBytes = 16 << 10;
// Of the kernel; by itself it would grow to megabytes of output that a client does not read.
constexpr int kSendBufferBytes = 256 << 10;
constexpr auto kLingerTime = seconds(5);
constexpr size_t kSinkBytes = 4 << 10;
constexpr char kServerName[] = "pbserve";

absl::Status peer_left() { return absl::CancelledError("the peer left"); }

absl::Status bad_http(const error_code& error) {
  return absl::InvalidArgumentError(absl::StrCat("not valid HTTP: ", error.message()));
}

// Of the parser, and not of the socket.
bool is_http_error(const error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

// Room for a whole head and for what may be read ahead. What is in the buffer is a head, the frame
// of a chunk, trailers or pipelined requests, never a body: it has no need to grow further.
size_t buffer_limit(const HttpOptions& options) {
  return std::max(static_cast<size_t>(options.max_header_bytes), kReadAheadBytes) + kBodyReadBytes;
}

}  // namespace

struct HttpStream::Impl {
  Impl(tcp::socket the_socket, const HttpOptions& the_options,
       std::shared_ptr<asio::ssl::context> tls)
      : transport(std::move(the_socket), std::move(tls)),
        socket(transport.socket()),
        options(the_options),
        buffer(buffer_limit(the_options)) {}

  // Lets the parser take what is there, and reads until it has taken something. Beast's own read
  // would throw what the parser throws (bad_alloc) into the thread; here it reaches the caller.
  awaitable<error_code> advance(size_t read_bytes) {
    while (true) {
      if (buffer.size() > 0) {
        error_code error;
        buffer.consume(parser->put(buffer.data(), error));
        if (error != http::error::need_more) co_return error;
        if (buffer.size() >= static_cast<size_t>(options.max_header_bytes)) {
          co_return http::make_error_code(http::error::buffer_overflow);
        }
      }
      const auto [error, bytes] =
          co_await transport.async_read_some(buffer.prepare(read_bytes), kTuple);
      buffer.commit(bytes);
      if (error) co_return error;
    }
  }

  // `written` is what the answer has become if the write succeeds.
  template <class Write>
  awaitable<bool> write(Write start, Answer written) {
    const StallTimer stall(&socket, seconds(options.write_timeout_s));
    answer = Answer::kOver;
    const auto [error, bytes] = co_await start();
    if (!error) answer = written;
    co_return !error;
  }

  template <class Buffers>
  awaitable<bool> write_raw(Buffers buffers, Answer written) {
    return write([this, buffers] { return asio::async_write(transport, buffers, kTuple); },
                 written);
  }

  int64_t buffer_bytes_to_charge() const {
    return std::max<int64_t>(static_cast<int64_t>(buffer.capacity()) - kFreeBufferBytes, 0);
  }

  Transport transport;
  tcp::socket& socket;  // the transport's
  const HttpOptions& options;
  beast::flat_buffer buffer;
  std::optional<http::request_parser<http::string_body>> parser;
  HttpHeaders headers;           // of every answer to this request
  ByteBudget::Lease read_ahead;  // what the buffer holds while an answer is made
  Answer answer = Answer::kNone;
  bool is_idle = false;        // nothing is owed to the peer: see closer()
  bool is_chunked = false;     // the event stream's framing; HTTP/1.0 ends it by closing
  bool has_discarded = false;  // what the peer pipelined is not whole any more
};

HttpStream::HttpStream(asio::ip::tcp::socket socket, const HttpOptions& options,
                       std::shared_ptr<asio::ssl::context> tls)
    : impl_(std::make_shared<Impl>(std::move(socket), options, std::move(tls))) {
  error_code ignored;
  impl_->socket.set_option(tcp::no_delay(true), ignored);
  impl_->socket.set_option(asio::socket_base::send_buffer_size(kSendBufferBytes), ignored);
}

HttpStream::~HttpStream() = default;

awaitable<bool> HttpStream::wait_for_request() {
  Impl& impl = *impl_;
  if (impl.buffer.size() > 0) co_return true;
  // Nothing is held while nobody knows for how long: 64 KiB of short header lines are a megabyte
  // of the parser's.
  impl.buffer.shrink_to_fit();
  impl.parser.reset();
  const Deadline deadline(&impl.socket, seconds(impl.options.idle_timeout_s));
  impl.is_idle = true;
  const auto [error, bytes] =
      co_await impl.transport.async_read_some(impl.buffer.prepare(kHeadReadBytes), kTuple);
  impl.is_idle = false;
  impl.buffer.commit(bytes);
  co_return !error;
}

std::function<void()> HttpStream::closer() const {
  return [executor = impl_->socket.get_executor(), weak = std::weak_ptr(impl_)] {
    asio::post(executor, [weak] {
      const auto impl = weak.lock();
      error_code ignored;
      if (impl && impl->is_idle) impl->socket.close(ignored);
    });
  };
}

awaitable<bool> HttpStream::handshake() {
  Impl& impl = *impl_;
  const Deadline deadline(&impl.socket, seconds(impl.options.header_timeout_s));
  impl.is_idle = true;
  const error_code error = co_await impl.transport.handshake();
  impl.is_idle = false;
  if (!error) co_return true;
  // Not louder: anybody can cause thousands.
  spdlog::debug("TLS handshake failed: {}", error.message());
  if (!deadline.has_expired()) co_await close_politely();  // what is wrong has been told the peer
  co_return false;
}

awaitable<absl::StatusOr<HttpRequest>> HttpStream::read_header() {
  Impl& impl = *impl_;
  impl.parser.reset();
  impl.read_ahead = {};
  impl.answer = Answer::kNone;
  impl.headers.clear();
  impl.parser.emplace();
  impl.parser->header_limit(static_cast<uint32_t>(impl.options.max_header_bytes));
  impl.parser->body_limit(static_cast<uint64_t>(impl.options.max_body_bytes));
  const Deadline deadline(&impl.socket, seconds(impl.options.header_timeout_s));
  while (!impl.parser->is_header_done()) {
    impl.is_idle = true;
    const error_code error = co_await impl.advance(kHeadReadBytes);
    impl.is_idle = false;
    if (deadline.has_expired()) {
      co_return read_timeout("request header", impl.options.header_timeout_s);
    }
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      co_return headers_too_large(impl.options.max_header_bytes);
    }
    if (error == http::error::body_limit) co_return body_too_large(impl.options.max_body_bytes);
    if (error) co_return is_http_error(error) ? bad_http(error) : peer_left();
  }
  absl::StatusOr<HttpRequest> request = read_head(impl.parser->get().base());
  if (request.ok()) request->has_body = !impl.parser->is_done();
  co_return request;
}

awaitable<absl::Status> HttpStream::read_body(ByteBudget* budget, HttpRequest* request) {
  Impl& impl = *impl_;
  request->body_lease = ByteBudget::Lease(budget);
  impl.read_ahead = ByteBudget::Lease(budget);
  if (absl::EqualsIgnoreCase(header_or_empty(*request, "expect"), "100-continue")) {
    static constexpr absl::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!co_await impl.write_raw(asio::buffer(kContinue), Answer::kNone)) co_return peer_left();
  }
  impl.parser->eager(true);
  const Deadline deadline(&impl.socket, seconds(impl.options.body_timeout_s));
  while (!impl.parser->is_done()) {
    const error_code error = co_await impl.advance(kBodyReadBytes);
    if (deadline.has_expired()) {
      co_return read_timeout("request body", impl.options.body_timeout_s);
    }
    if (error == http::error::body_limit) co_return body_too_large(impl.options.max_body_bytes);
    if (error == http::error::buffer_overflow) {
      co_return chunk_frame_too_large(impl.options.max_header_bytes);
    }
    if (error) co_return is_http_error(error) ? bad_http(error) : peer_left();
    const auto held = static_cast<int64_t>(impl.parser->get().body().size());
    if (!request->body_lease.grow_to(held + impl.buffer_bytes_to_charge())) {
      co_return buffers_full("the request body", budget->limit_bytes());
    }
  }
  request->body = std::move(impl.parser->get().body());
  co_return absl::OkStatus();
}

void HttpStream::set_headers(HttpHeaders headers) { impl_->headers = std::move(headers); }

awaitable<bool> HttpStream::write_reply(HttpReply reply, bool keep_alive) {
  Impl& impl = *impl_;
  const unsigned version = impl.parser ? impl.parser->get().version() : 11;
  const auto status = static_cast<http::status>(reply.status);
  const bool is_empty = status == http::status::no_content;  // which has no length either
  http::response<http::string_body> response(status, version);
  if (reply.status == kClientClosedRequest) response.reason("Client Closed Request");
  response.set(http::field::server, kServerName);
  if (!is_empty) response.set(http::field::content_type, reply.content_type);
  for (const auto& [name, value] : impl.headers) response.set(name, value);
  for (const auto& [name, value] : reply.headers) response.set(name, value);
  response.keep_alive(keep_alive && !impl.has_discarded);
  response.body() = std::move(reply.body);
  if (!is_empty) response.prepare_payload();
  if (!impl.parser || impl.parser->get().method() != http::verb::head) {
    co_return co_await impl.write(
        [&] { return http::async_write(impl.transport, response, kTuple); }, Answer::kOver);
  }
  // The length of the body that GET would get, and no body.
  http::response_serializer<http::string_body> serializer(response);
  co_return co_await impl.write(
      [&] { return http::async_write_header(impl.transport, serializer, kTuple); }, Answer::kOver);
}

awaitable<bool> HttpStream::begin_events(std::string request_id, bool keep_alive) {
  Impl& impl = *impl_;
  const unsigned version = impl.parser->get().version();
  impl.is_chunked = version >= 11;
  http::response<http::empty_body> response(http::status::ok, version);
  response.set(http::field::server, kServerName);
  response.set(http::field::content_type, "text/event-stream; charset=utf-8");
  response.set(http::field::cache_control, "no-cache");
  response.set("X-Accel-Buffering", "no");  // proxies must pass each event on at once
  response.set("X-Request-Id", request_id);
  for (const auto& [name, value] : impl.headers) response.set(name, value);
  response.keep_alive(keep_alive && impl.is_chunked && !impl.has_discarded);
  response.chunked(impl.is_chunked);
  http::response_serializer<http::empty_body> serializer(response);
  co_return co_await impl.write(
      [&] { return http::async_write_header(impl.transport, serializer, kTuple); },
      Answer::kEvents);
}

awaitable<bool> HttpStream::write_events(absl::string_view events) {
  if (events.empty()) co_return true;  // an empty chunk would end the stream
  const asio::const_buffer buffer(events.data(), events.size());
  if (!impl_->is_chunked) co_return co_await impl_->write_raw(buffer, Answer::kEvents);
  co_return co_await impl_->write_raw(http::make_chunk(buffer), Answer::kEvents);
}

awaitable<bool> HttpStream::end_events() {
  if (!impl_->is_chunked) co_return true;
  co_return co_await impl_->write_raw(http::make_chunk_last(), Answer::kOver);
}

HttpStream::Answer HttpStream::answer() const { return impl_->answer; }

awaitable<bool> HttpStream::wait_for_disconnect() {
  Impl& impl = *impl_;
  if (impl.buffer.size() == 0) impl.buffer.shrink_to_fit();
  error_code error;
  while (!error) {
    const bool has_room = impl.read_ahead.grow_to(impl.buffer_bytes_to_charge());
    if (impl.buffer.size() >= kReadAheadBytes || !has_room) {
      // Reading goes on, or a peer that leaves behind unread bytes would never be noticed. A client
      // that pipelines must expect the close after this answer (RFC 9112, section 9.3.2).
      impl.buffer.clear();
      impl.buffer.shrink_to_fit();
      impl.has_discarded = true;
    }
    const auto [read_error, bytes] =
        co_await impl.transport.async_read_some(impl.buffer.prepare(kHeadReadBytes), kTuple);
    impl.buffer.commit(bytes);
    error = read_error;
  }
  co_return error == asio::error::eof;
}

awaitable<void> HttpStream::close_politely() {
  Impl& impl = *impl_;
  const Deadline deadline(&impl.socket, kLingerTime);
  co_await impl.transport.end_sending();
  error_code error;
  std::string sink(kSinkBytes, '\0');
  impl.is_idle = true;  // others need the place more than a peer that has its answer
  while (!error && !deadline.has_expired()) {
    const auto [read_error, bytes] =
        co_await impl.socket.async_read_some(asio::buffer(sink), kTuple);
    error = read_error;
  }
  impl.socket.close(error);
}

bool HttpStream::keep_alive() const {
  if (!impl_->parser || impl_->has_discarded) return false;
  const auto& header = impl_->parser->get();
  // HTTP/1.0 cannot frame an event stream.
  return header.keep_alive() && header.version() >= 11;
}

}  // namespace pbserve::server
