// The last messages that were published, for subscribers that have missed some.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

namespace pbserve::server {

struct KvMessage {
  uint64_t sequence = 0;
  std::string topic;
  std::shared_ptr<const std::string> payload;  // shared by all who are sent it
};

class ReplayBuffer {
 public:
  explicit ReplayBuffer(size_t max_messages) : max_messages_(max_messages) {}

  // Drops the oldest where there is no room. REQUIRES: sequences ascend; they may have gaps.
  void add(KvMessage message);

  // The first one from `sequence` on; null where there is none. Valid until the next add().
  const KvMessage* find_from(uint64_t sequence) const;

 private:
  const size_t max_messages_;
  std::deque<KvMessage> messages_;
};

}  // namespace pbserve::server
