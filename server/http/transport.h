// A connection's socket, plain or with TLS on it, as one stream for the operations of Asio and
// Beast. All calls on the socket's strand; one read and one write may run at a time.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/system/error_code.hpp>
#include <memory>
#include <optional>
#include <utility>

namespace pbserve::server {

class Transport {
 public:
  using executor_type = boost::asio::any_io_executor;

  // `tls` null: plain.
  Transport(boost::asio::ip::tcp::socket socket, std::shared_ptr<boost::asio::ssl::context> tls);
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // With TLS, before anything else; plain: at once.
  boost::asio::awaitable<boost::system::error_code> handshake();

  // A read ends with asio::error::eof where the peer has ended its sending side; with TLS that is
  // its close_notify, and an end without it is another error: the connection is broken.
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return tls_ ? tls_->async_read_some(buffers, std::forward<Token>(token))
                : socket_.async_read_some(buffers, std::forward<Token>(token));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return tls_ ? tls_->async_write_some(buffers, std::forward<Token>(token))
                : socket_.async_write_some(buffers, std::forward<Token>(token));
  }

  // Ends our sending side; the peer's goes on, to be read from socket().
  boost::asio::awaitable<void> end_sending();

  executor_type get_executor() { return socket_.get_executor(); }

  // For options, timers and the close. With TLS, what is read from it is ciphertext.
  boost::asio::ip::tcp::socket& socket() { return socket_; }

 private:
  boost::asio::ip::tcp::socket socket_;
  const std::shared_ptr<boost::asio::ssl::context> context_;  // what tls_ refers to
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
  bool is_encrypted_ = false;  // the handshake is complete
};

}  // namespace pbserve::server
