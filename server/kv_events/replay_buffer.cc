#include "server/kv_events/replay_buffer.h"

#include <algorithm>
#include <utility>

namespace pbserve::server {

void ReplayBuffer::add(KvMessage message) {
  if (max_messages_ == 0) return;
  if (messages_.size() >= max_messages_) messages_.pop_front();
  messages_.push_back(std::move(message));
}

const KvMessage* ReplayBuffer::find_from(uint64_t sequence) const {
  const auto found = std::ranges::lower_bound(messages_, sequence, {}, &KvMessage::sequence);
  return found == messages_.end() ? nullptr : &*found;
}

}  // namespace pbserve::server
