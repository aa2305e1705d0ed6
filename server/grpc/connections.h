// The connections that gRPC has, seen through their descriptors: how many are open, and how much of
// messages that are not complete has come in. gRPC tells neither; it takes a message of any length
// once it is read, and when its own quota is over it ends calls at random. What comes in is counted
// as TCP has it: with HTTP/2's frames, and with TLS as ciphertext, which adds some 30 bytes to each
// record of up to 16 KiB. Peers that send small records are charged for what they send.
#pragma once

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

namespace pbserve::server {

// Thread-safe.
class GrpcConnections {
 public:
  // Ends a call whose message takes too much; from a thread of ours, outside the lock.
  using Refuse = std::function<void(const absl::Status&)>;

  // Incomplete messages are charged to `messages`.
  explicit GrpcConnections(ByteBudget* messages);
  ~GrpcConnections();
  GrpcConnections(const GrpcConnections&) = delete;
  GrpcConnections& operator=(const GrpcConnections&) = delete;

  // A connection that gRPC gets; `peer` is "address:port", IPv6 addresses in brackets.
  void add(std::string peer, int descriptor);
  bool is_full(size_t limit);

  // From begin() to end() a message is received from `peer`, as gRPC writes it. One that needs no
  // key has a small bound of its own and is not charged. `id` names the message in end().
  int64_t begin(absl::string_view peer, bool needs_key, Refuse refuse);
  void end(absl::string_view peer, int64_t id, int64_t message_bytes);

 private:
  struct Reading {
    bool needs_key;
    int64_t received_before;  // of the connection, when this began
    int64_t delivered = 0;    // messages that were complete since then
    Refuse refuse;            // empty once called
  };
  struct Connection {
    Connection() = default;
    Connection(int the_descriptor, uint64_t the_inode)
        : descriptor(the_descriptor), inode(the_inode) {}

    int descriptor = -1;
    uint64_t inode = 0;
    int64_t received = 0;                 // at the last look
    std::map<int64_t, Reading> readings;  // by id: the oldest first
    ByteBudget::Lease lease;
  };
  using Refusals = std::vector<std::pair<Refuse, absl::Status>>;

  void run();
  void look(Connection* connection, Refusals* refusals);

  ByteBudget* const messages_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::unordered_map<std::string, Connection> connections_;  // by peer
  int64_t num_readings_ = 0;
  int64_t next_id_ = 0;
  bool is_over_ = false;
  std::thread thread_;
};

}  // namespace pbserve::server
