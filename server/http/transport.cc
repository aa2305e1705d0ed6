#include "server/http/transport.h"

#include <openssl/ssl.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

}  // namespace

Transport::Transport(tcp::socket socket, std::shared_ptr<asio::ssl::context> tls)
    : socket_(std::move(socket)), context_(std::move(tls)) {
  if (context_) tls_.emplace(socket_, *context_);
}

asio::awaitable<error_code> Transport::handshake() {
  if (!tls_) co_return error_code();
  const auto [error] = co_await tls_->async_handshake(asio::ssl::stream_base::server, kTuple);
  is_encrypted_ = !error;
  co_return error;
}

asio::awaitable<void> Transport::end_sending() {
  if (is_encrypted_) {
    // As if the peer had ended its side already: OpenSSL then writes our close_notify and does not
    // wait for the peer's, which may come after much else.
    SSL* const native = tls_->native_handle();
    SSL_set_shutdown(native, SSL_get_shutdown(native) | SSL_RECEIVED_SHUTDOWN);
    co_await tls_->async_shutdown(kTuple);
  }
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
}

}  // namespace pbserve::server
