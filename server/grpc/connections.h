// The connections that gRPC has, seen through their descriptors: how many are open, which of them
// are idle, and how much of messages that are not complete has come in. gRPC tells none of it; it
// takes a message of any length once it is read, and when its own quota is over it ends calls at
// random. What comes in is counted as TCP has it: with HTTP/2's frames, and with TLS as ciphertext,
// which adds some 30 bytes to each record of up to 16 KiB. Peers that send small records are
// charged for what they send.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"
#include "server/byte_budget.h"
#include "server/connection_limits.h"

namespace pbserve::server {

// Thread-safe.
class GrpcConnections {
 public:
  // Ends a call whose message takes too much; from a thread of ours, outside the lock.
  using Refuse = std::function<void(const absl::Status&)>;

  // Incomplete messages are charged to `messages`.
  GrpcConnections(ByteBudget* messages, ConnectionLimits limits);
  ~GrpcConnections();  // stop()
  GrpcConnections(const GrpcConnections&) = delete;
  GrpcConnections& operator=(const GrpcConnections&) = delete;

  // A connection that gRPC gets; `name` is its connection_name(), with the `address` in it.
  void add(std::string name, std::string address, int descriptor);

  // Why a new connection from `address` cannot be taken; empty if it can. Ends the longest idle one
  // where a limit is reached: one without a call. What gRPC has closed within the last tenth of a
  // second may count still.
  std::string make_room(absl::string_view address);

  // Between these `peer`, as gRPC writes it, has a call open for which its connection is to stay.
  void begin_call(absl::string_view peer);
  void end_call(absl::string_view peer);

  // Of what remains nothing is refused any more. Its thread may hold the last of a call: to be
  // called before what calls refer to goes.
  void stop();

  int64_t num_open();
  int64_t num_refused() const { return num_refused_; }  // for want of room, so far

  // From begin() to end() a message is received from `peer`. One that needs no key has a small
  // bound of its own and is not charged. `id` names the message in end().
  int64_t begin(absl::string_view peer, bool needs_key, Refuse refuse);
  void end(absl::string_view peer, int64_t id, int64_t message_bytes);

 private:
  using Clock = std::chrono::steady_clock;
  struct Reading {
    bool needs_key;
    int64_t received_before;  // of the connection, when this began
    int64_t delivered = 0;    // messages that were complete since then
    Refuse refuse;            // empty once called
  };
  struct Connection {
    Connection(std::string the_group, int the_descriptor, uint64_t the_inode)
        : group(std::move(the_group)), descriptor(the_descriptor), inode(the_inode) {}

    bool is_open() const;

    std::string group;  // address_group()
    int descriptor = -1;
    uint64_t inode = 0;
    int64_t num_calls = 0;
    Clock::time_point idle_since = Clock::now();
    int64_t received = 0;                 // at the last look
    std::map<int64_t, Reading> readings;  // by id: the oldest first
    ByteBudget::Lease lease;
  };
  using Connections = std::unordered_map<std::string, Connection>;  // by name
  using Refusals = std::vector<std::pair<Refuse, absl::Status>>;

  bool has_room(const std::string& group) const;
  Connections::iterator forget(Connections::iterator connection);  // the next one
  void forget_closed();
  bool shed(absl::string_view group);  // an empty one stands for all
  void run();
  void look(Connection* connection, Refusals* refusals);

  ByteBudget* const messages_;
  const ConnectionLimits limits_;
  std::mutex mutex_;
  std::condition_variable wake_;
  Connections connections_;
  std::unordered_map<std::string, int64_t> num_of_group_;  // of connections_; none is 0
  Clock::time_point last_look_;                            // of forget_closed()
  int64_t num_readings_ = 0;
  int64_t next_id_ = 0;
  bool is_over_ = false;
  std::atomic<int64_t> num_refused_{0};
  std::thread thread_;
};

}  // namespace pbserve::server
