// What happened to one block of the prefix cache, on its way from the engine to subscribers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/cache_listener.h"

namespace pbserve::server {

// What all blocks of one chain share.
struct KvEventSource {
  std::string topic;
  std::string salt;
};

struct KvEvent {
  enum class Kind : uint8_t {
    kStored,
    kRemoved,
    kCleared,  // all blocks of the source's topic
    kLost,     // in the place of events that found no room
  };

  Kind kind = Kind::kStored;
  engine::Tier tier = engine::Tier::kDevice;
  uint64_t hash = 0;
  uint64_t parent = 0;          // 0: the block is its chain's first
  std::vector<int32_t> tokens;  // of a stored block
  std::shared_ptr<const KvEventSource> source;
};

}  // namespace pbserve::server
