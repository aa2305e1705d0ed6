#include "server/http/socket_timers.h"

#include <boost/asio/steady_timer.hpp>
#include <utility>

#include "server/delivered_bytes.h"

namespace pbserve::server {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr int kLooksPerLimit = 8;  // how finely a stall is timed

}  // namespace

struct Deadline::State {
  explicit State(tcp::socket* socket) : timer(socket->get_executor()) {}

  boost::asio::steady_timer timer;
  bool is_over = false;  // the socket may be gone
  bool has_expired = false;
};

Deadline::Deadline(tcp::socket* socket, std::chrono::seconds limit)
    : state_(std::make_shared<State>(socket)) {
  state_->timer.expires_after(limit);
  state_->timer.async_wait([socket, state = state_](error_code error) {
    if (error || state->is_over) return;
    state->has_expired = true;
    socket->cancel(error);
  });
}

Deadline::~Deadline() {
  state_->is_over = true;
  state_->timer.cancel();
}

bool Deadline::has_expired() const { return state_->has_expired; }

struct StallTimer::State : std::enable_shared_from_this<StallTimer::State> {
  State(tcp::socket* the_socket, std::chrono::seconds the_limit)
      : timer(the_socket->get_executor()), socket(the_socket), limit(the_limit) {}

  void look_later() {
    timer.expires_after(limit / kLooksPerLimit);
    timer.async_wait([state = shared_from_this()](error_code error) {
      if (!error && !state->is_over) state->look();
    });
  }

  void look() {
    const int64_t now_delivered = delivered_bytes(socket->native_handle());
    // The first look has nothing to compare with: short writes never need one.
    if (std::exchange(delivered, now_delivered) != now_delivered && has_looked) {
      last_progress = Clock::now();
    }
    has_looked = true;
    if (Clock::now() - last_progress < limit) return look_later();
    error_code ignored;
    socket->cancel(ignored);
  }

  boost::asio::steady_timer timer;
  tcp::socket* const socket;
  const std::chrono::milliseconds limit;
  Clock::time_point last_progress = Clock::now();
  int64_t delivered = 0;
  bool has_looked = false;
  bool is_over = false;  // the socket may be gone
};

StallTimer::StallTimer(tcp::socket* socket, std::chrono::seconds limit)
    : state_(std::make_shared<State>(socket, limit)) {
  state_->look_later();
}

StallTimer::~StallTimer() {
  state_->is_over = true;
  state_->timer.cancel();
}

}  // namespace pbserve::server
