// Gives subscribers what they have missed: a ROUTER socket that takes the number of the first
// message wanted, eight bytes, big-endian, and answers with the messages from there to the newest
// one at that time, then with the number -1. Frames as in vLLM: "", topic, number, payload.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "server/kv_events/replay_buffer.h"

namespace pbserve::server {

class ReplayServer {
 public:
  // `socket` listens already; it and `buffer` belong to the caller's thread and outlive this.
  ReplayServer(zmq::socket_t* socket, const ReplayBuffer* buffer)
      : socket_(socket), buffer_(buffer) {}

  // Takes requests that have come, a bounded number; `next` is the sequence number of the next
  // message. Requests that make no sense are not answered.
  void receive(uint64_t next);

  // Sends as much as clients take now. True while some have to take more: call again soon.
  bool advance();

  int64_t num_sent() const { return num_sent_; }  // messages, over all clients

 private:
  using Clock = std::chrono::steady_clock;

  struct Replay {
    std::string client;
    uint64_t next = 0;
    uint64_t end = 0;
    Clock::time_point last_sent;
  };
  enum class Sent : uint8_t { kYes, kNoRoom, kGone };

  void begin(std::string client, uint64_t first, uint64_t end);
  bool is_over(Replay* replay);
  Sent send(const Replay& replay, const std::string& topic, const std::string& sequence,
            const std::shared_ptr<const std::string>& payload);

  zmq::socket_t* const socket_;
  const ReplayBuffer* const buffer_;
  std::vector<Replay> replays_;
  int64_t num_sent_ = 0;
};

}  // namespace pbserve::server
