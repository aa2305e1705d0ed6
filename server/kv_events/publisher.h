// Publishes what happens in the engine's prefix cache, as vLLM does: a PUB socket with messages of
// three frames, topic, sequence number and payload, and, if wanted, a socket that repeats them.
// One sequence of numbers over all topics; a number that is left out was lost.
//
// ZeroMQ's sockets know no keys: who can connect reads the tokens of every prompt.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "kernels/core/status.h"
#include "server/config/config.h"

namespace pbserve::server {

class KvEventPublisher {
 public:
  // Takes the endpoints. kInvalidArgument or kUnavailable name the one that cannot be had.
  static absl::StatusOr<std::unique_ptr<KvEventPublisher>> bind(const KvEventsOptions& options);
  // Publishes what waits and ends, within a second.
  ~KvEventPublisher();
  KvEventPublisher(const KvEventPublisher&) = delete;
  KvEventPublisher& operator=(const KvEventPublisher&) = delete;

  // Listens to the engine and publishes from here on. Once, before the engine's first request; the
  // engine ends first. `http_port` is a part of the topic where the options have none.
  void start(engine::Engine* engine, uint16_t http_port);

  // As they were bound: tcp://0.0.0.0:5557.
  std::string endpoint() const;
  std::string replay_endpoint() const;  // empty: none

  int64_t num_published() const { return num_published_; }  // messages
  int64_t num_replayed() const { return num_replayed_; }    // messages
  int64_t num_dropped() const;                              // events

 private:
  struct Sockets;
  struct Stream;

  explicit KvEventPublisher(const KvEventsOptions& options);
  void run();
  void take_turn(bool* has_replays);
  void publish_all();
  void publish(size_t begin, size_t count);
  void tell_of_drops();

  const KvEventsOptions options_;
  const std::unique_ptr<Sockets> sockets_;
  std::unique_ptr<Stream> stream_;  // what start() makes
  std::atomic<int64_t> num_published_{0};
  std::atomic<int64_t> num_replayed_{0};
  std::atomic<int64_t> num_unsent_{0};  // events of messages for which there was no memory
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

}  // namespace pbserve::server
