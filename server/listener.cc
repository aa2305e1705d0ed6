#include "server/listener.h"

#include <spdlog/spdlog.h>

#include <boost/asio/strand.hpp>
#include <chrono>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/descriptor_watch.h"
#include "server/peer_address.h"
#include "server/run_surely.h"

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // after "too many open files"
constexpr auto kLogInterval = std::chrono::seconds(1);

}  // namespace

Listener::Listener(asio::io_context* io, std::string name)
    : io_(*io), name_(std::move(name)), acceptor_(*io), pause_(*io) {}

absl::Status Listener::bind(const std::string& host, int32_t port) {
  error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("server.host = ", host, ": must be an IP address such as 0.0.0.0"));
  }
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(port));
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(name_, " cannot listen on ", host, ":", port, ": ", error.message()));
}

absl::Status Listener::listen() {
  error_code error;
  acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(name_, " cannot listen: ", error.message()));
}

uint16_t Listener::port() const {
  error_code ignored;
  return acceptor_.local_endpoint(ignored).port();
}

int Listener::descriptor() { return acceptor_.native_handle(); }

void Listener::close() {
  error_code ignored;
  acceptor_.close(ignored);
  pause_.cancel();
}

void Listener::accept(Serve serve, Refusal refusal) {
  serve_ = std::move(serve);
  refusal_ = std::move(refusal);
  accept_next();
}

// No coroutine: Asio destroys one that it has no memory to continue.
void Listener::accept_next() {
  if (!acceptor_.is_open()) return;
  run_surely([this] {
    acceptor_.async_accept(asio::make_strand(io_), [this](error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) return wait_after(error);
      try {
        take(std::move(socket));
      } catch (const std::exception& thrown) {  // that connection is lost
        run_surely([&] { log(&failed_, absl::StrCat("connection lost: ", thrown.what())); });
      }
      accept_next();
    });
  });
}

void Listener::wait_after(const error_code& error) {
  run_surely([this, &error] {
    const bool has_none = error == asio::error::no_descriptors ||
                          error == boost::system::errc::too_many_files_open_in_system;
    if (has_none) note_descriptors_used_up();
    log(&failed_, absl::StrCat("accept: ", error.message()));
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](error_code) { accept_next(); });
  });
}

void Listener::take(tcp::socket socket) {
  error_code error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  if (error) return;  // it has gone
  if (const std::string text = refusal_(address_of(peer)); !text.empty()) {
    return log(&refused_, absl::StrCat("connection refused: ", text));  // the socket closes here
  }
  serve_(std::move(socket));
}

void Listener::log(RareLine* line, const std::string& what) {
  const Clock::time_point time = Clock::now();
  if (time - line->last < kLogInterval) {
    ++line->num_unlogged;
    return;
  }
  line->last = time;
  spdlog::warn("{} {} (and {} not logged)", name_, what, std::exchange(line->num_unlogged, 0));
}

}  // namespace pbserve::server
