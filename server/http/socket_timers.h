// Limits on how long a socket operation may wait. When one is over, what waits on the socket is
// cancelled; unlike the timeouts of Beast's tcp_stream they do not close it: an answer may follow.
// Made, used and destroyed on the socket's strand.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <memory>

namespace pbserve::server {

// A point in time by which something must be there, whatever has arrived before.
class Deadline {
 public:
  Deadline(boost::asio::ip::tcp::socket* socket, std::chrono::seconds limit);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  bool has_expired() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// The longest time in which the peer may take nothing of what is written to it. A slow peer that
// goes on reading is never cut off.
class StallTimer {
 public:
  StallTimer(boost::asio::ip::tcp::socket* socket, std::chrono::seconds limit);
  ~StallTimer();
  StallTimer(const StallTimer&) = delete;
  StallTimer& operator=(const StallTimer&) = delete;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pbserve::server
