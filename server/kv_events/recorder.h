// Names the blocks of the prefix cache and puts what happens to them into the publisher's queue,
// under the topic of who may use them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/cache_listener.h"
#include "server/kv_events/event_queue.h"

namespace pbserve::server {

// What the pages of a server are called.
struct KvEventNames {
  std::string topic;        // of pages that a request which asks for no mode can use
  std::string model;        // a part of every hash
  std::string made_by;      // of those pages: PBS as configured, or dense with pbs.mode dense
  std::string pbs_made_by;  // of PBS as configured
};

// A router hashes tokens, model and cache_salt, so pages that do not fit each other must look like
// pages of different models. `names.topic`, which ends with the model's name, is that of a request
// without wishes; "-dense" is behind it for dense pages, "-pbs" for PBS where dense is the default,
// and "-pbs-" and eight hexadecimal digits for PBS with another threshold.
std::string kv_topic(const KvEventNames& names, std::string_view made_by);

class KvEventRecorder : public engine::CacheListener {
 public:
  // Begins with AllBlocksCleared for the first two topics: subscribers may know the blocks of a
  // process that was here before. `queue` outlives it.
  KvEventRecorder(KvEventNames names, KvEventQueue* queue);

  uint64_t on_stored(std::string_view root, uint64_t parent, std::span<const int32_t> tokens,
                     engine::Tier tier) override;
  void on_removed(std::string_view root, uint64_t hash, engine::Tier tier) override;

 private:
  void look_up(std::string_view root);

  const KvEventNames names_;
  KvEventQueue* const queue_;
  // Of the root that was asked for last: those of one sequence come in a row.
  std::string root_;
  uint64_t root_hash_ = 0;
  std::shared_ptr<const KvEventSource> source_;
};

}  // namespace pbserve::server
