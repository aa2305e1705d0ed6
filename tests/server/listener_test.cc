// A port accepts on, whatever the one who serves it throws.
#include "server/listener.h"

#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace pbserve::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

// Connects twice; returns how many of the two were brought to `serve`.
int num_served(const Listener::Serve& serve, const Listener::Refusal& refusal) {
  asio::io_context io;
  Listener listener(&io, "test");
  EXPECT_TRUE(listener.bind("127.0.0.1", 0).ok());
  EXPECT_TRUE(listener.listen().ok());
  int count = 0;
  const auto counted = [&](tcp::socket socket) {
    if (++count == 2) io.stop();
    serve(std::move(socket));
  };
  listener.accept(counted, refusal);
  const tcp::endpoint endpoint(asio::ip::address_v4::loopback(), listener.port());
  tcp::socket first(io);
  first.connect(endpoint);
  tcp::socket second(io);
  second.connect(endpoint);
  io.run_for(std::chrono::seconds(2));
  return count;
}

std::string nobody(const std::string&) { return ""; }

TEST(Listener, AcceptsOnAfterWhatServeThrows) {
  EXPECT_EQ(num_served([](const tcp::socket&) { throw std::bad_alloc(); }, nobody), 2);
  EXPECT_EQ(num_served([](const tcp::socket&) { throw std::runtime_error("no"); }, nobody), 2);
}

TEST(Listener, AcceptsOnAfterWhatTheRefusalThrows) {
  int num_asked = 0;
  const auto refusal = [&](const std::string&) -> std::string {
    if (++num_asked == 1) throw std::length_error("no");
    return "";
  };
  EXPECT_EQ(num_served([](const tcp::socket&) {}, refusal), 1);
  EXPECT_EQ(num_asked, 2);
}

}  // namespace
}  // namespace pbserve::server
