// A listening TCP socket, and what accepts from it whatever happens.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "kernels/core/status.h"

namespace pbserve::server {

class Listener {
 public:
  // `name` is whose it is, for errors and log lines: "HTTP".
  Listener(boost::asio::io_context* io, std::string name);

  // Takes the address, without listening: a port in use is an error before a model is loaded.
  // `host` is an IP address; port 0 takes a free one.
  absl::Status bind(const std::string& host, int32_t port);
  absl::Status listen();
  uint16_t port() const;
  int descriptor();  // the listening socket's

  // Until close(), whatever `serve` and `refusal` throw. A connection for which `refusal` returns a
  // text is closed at once, and the text is logged at most once a second. Where descriptors are
  // used up, connections wait in the system's queue. Sockets have a strand each.
  using Serve = std::function<void(boost::asio::ip::tcp::socket)>;
  // Of a client's address, without the port; empty: there is room.
  using Refusal = std::function<std::string(const std::string& address)>;
  void accept(Serve serve, Refusal refusal);

  // On a thread of the io_context.
  void close();

 private:
  // Of lines that thousands of clients can cause: when the last was written, and how many were not.
  struct RareLine {
    std::chrono::steady_clock::time_point last;
    int64_t num_unlogged = 0;
  };
  void accept_next();
  void wait_after(const boost::system::error_code& error);
  void take(boost::asio::ip::tcp::socket socket);
  void log(RareLine* line, const std::string& what);

  boost::asio::io_context& io_;
  const std::string name_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  Serve serve_;
  Refusal refusal_;
  RareLine failed_;
  RareLine refused_;
};

}  // namespace pbserve::server
