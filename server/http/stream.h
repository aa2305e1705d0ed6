// One HTTP/1.1 connection: reads requests under limits and deadlines, writes replies and event
// streams, notices when the peer leaves. This file and head.h are all that knows Beast. All
// calls on the connection's strand; wait_for_disconnect() may run beside writes, nothing else may.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"
#include "server/config/config.h"
#include "server/http/message.h"

namespace boost::asio::ssl {
class context;
}

namespace pbserve::server {

class HttpStream {
 public:
  // `tls` null: plain HTTP.
  HttpStream(boost::asio::ip::tcp::socket socket, const HttpOptions& options,
             std::shared_ptr<boost::asio::ssl::context> tls = nullptr);
  ~HttpStream();
  HttpStream(const HttpStream&) = delete;
  HttpStream& operator=(const HttpStream&) = delete;

  // With TLS, before anything else; within header_timeout_s. False: the connection is over.
  boost::asio::awaitable<bool> handshake();

  // Until a byte of the next request is there. False: the peer left, was idle for too long, or the
  // closer was called.
  boost::asio::awaitable<bool> wait_for_request();
  // Ends handshake(), that wait, read_header() and close_politely(), and nothing else: the peer has
  // its answer or has not asked. From any thread, also when the stream is gone.
  std::function<void()> closer() const;

  // The next request without its body. kCancelled: the peer left; every other error can be
  // answered.
  boost::asio::awaitable<absl::StatusOr<HttpRequest>> read_header();
  // Fills body and body_lease. Throws std::bad_alloc where the body does not fit into memory.
  boost::asio::awaitable<absl::Status> read_body(ByteBudget* budget, HttpRequest* request);

  // What the answer to the last request carries besides its own headers.
  void set_headers(HttpHeaders headers);

  // False: the peer is gone or does not read. After a reply with `keep_alive` false nothing more
  // may be written.
  boost::asio::awaitable<bool> write_reply(HttpReply reply, bool keep_alive);

  // An event stream of unknown length: header, any number of pieces, end.
  boost::asio::awaitable<bool> begin_events(std::string request_id, bool keep_alive);
  boost::asio::awaitable<bool> write_events(absl::string_view events);
  boost::asio::awaitable<bool> end_events();

  // How far the answer to the last request has come.
  enum class Answer : uint8_t {
    kNone,    // not begun
    kEvents,  // an event stream that can go on or be ended
    kOver,    // complete, or cut off in the middle: nothing more may be written
  };
  Answer answer() const;

  // Returns when the peer has ended its sending side (true; it may still read) or the connection is
  // broken (false). Keeps what it reads meanwhile for the next request, up to a bound; of a peer
  // that sends more this answer is the last one.
  boost::asio::awaitable<bool> wait_for_disconnect();

  // Ends our side and reads on for a moment: a peer that is still sending would otherwise get a
  // reset in place of the reply.
  boost::asio::awaitable<void> close_politely();

  // Whether another request may follow the last one.
  bool keep_alive() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // a closer looks whether it is still there
};

}  // namespace pbserve::server
