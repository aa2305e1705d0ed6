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
// A handshake and a write are several operations of the socket. One cancel may fall between two of
// them and end neither.
constexpr auto kCancelPause = std::chrono::milliseconds(100);

}  // namespace

struct Deadline::State : std::enable_shared_from_this<Deadline::State> {
  explicit State(tcp::socket* the_socket) : timer(the_socket->get_executor()), socket(the_socket) {}

  void cancel_after(std::chrono::milliseconds time) {
    timer.expires_after(time);
    timer.async_wait([state = shared_from_this()](error_code error) {
      if (error || state->is_over) return;
      state->has_expired = true;
      state->socket->cancel(error);
      state->cancel_after(kCancelPause);
    });
  }

  boost::asio::steady_timer timer;
  tcp::socket* const socket;
  bool is_over = false;  // the socket may be gone
  bool has_expired = false;
};

Deadline::Deadline(tcp::socket* socket, std::chrono::seconds limit)
    : state_(std::make_shared<State>(socket)) {
  state_->cancel_after(limit);
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
    error_code ignored;
    if (Clock::now() - last_progress >= limit) socket->cancel(ignored);
    look_later();
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
