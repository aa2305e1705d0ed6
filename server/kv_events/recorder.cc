#include "server/kv_events/recorder.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/kv_events/block_hash.h"

namespace pbserve::server {

std::string kv_topic(const KvEventNames& names, std::string_view made_by) {
  if (made_by == names.made_by || made_by == "any") return names.topic;
  if (made_by == "dense") return absl::StrCat(names.topic, "-dense");
  if (made_by == names.pbs_made_by) return absl::StrCat(names.topic, "-pbs");
  const auto digits = static_cast<uint32_t>(root_hash("", made_by) >> 32);
  return absl::StrCat(names.topic, "-pbs-", absl::Hex(digits, absl::kZeroPad8));
}

KvEventRecorder::KvEventRecorder(KvEventNames names, KvEventQueue* queue)
    : names_(std::move(names)), queue_(queue) {
  const std::string second = names_.made_by == "dense" ? names_.pbs_made_by : "dense";
  for (const std::string& made_by : {names_.made_by, second}) {
    look_up(engine::CacheRoot{.made_by = made_by, .salt = ""}.text());
    queue_->push({.kind = KvEvent::Kind::kCleared, .tokens = {}, .source = source_});
  }
}

uint64_t KvEventRecorder::on_stored(std::string_view root, uint64_t parent,
                                    std::span<const int32_t> tokens, engine::Tier tier) {
  look_up(root);
  const uint64_t hash = block_hash(parent == 0 ? root_hash_ : parent, tokens);
  try {
    queue_->push({.kind = KvEvent::Kind::kStored,
                  .tier = tier,
                  .hash = hash,
                  .parent = parent,
                  .tokens = std::vector<int32_t>(tokens.begin(), tokens.end()),
                  .source = source_});
  } catch (const std::exception&) {  // for want of memory
    queue_->lose();
  }
  return hash;
}

void KvEventRecorder::on_removed(std::string_view root, uint64_t hash, engine::Tier tier) {
  look_up(root);
  queue_->push({.kind = KvEvent::Kind::kRemoved,
                .tier = tier,
                .hash = hash,
                .tokens = {},
                .source = source_});
}

void KvEventRecorder::look_up(std::string_view root) {
  if (source_ != nullptr && root == root_) return;
  const engine::CacheRoot parts = engine::CacheRoot::parse(root);
  source_ = std::make_shared<const KvEventSource>(
      KvEventSource{.topic = kv_topic(names_, parts.made_by), .salt = std::string(parts.salt)});
  root_hash_ = root_hash(names_.model, root);
  root_ = root;
}

}  // namespace pbserve::server
