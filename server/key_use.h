// What an API key has in flight, and what it may have: generating requests, and the tokens of their
// prompts and longest outputs. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "kernels/core/status.h"

namespace pbserve::server {

struct KeyLimits {
  int64_t max_requests = 0;  // 0: as many as they like
  int64_t max_tokens = 0;    // the same
};

class KeyUse {
 public:
  explicit KeyUse(const KeyLimits& limits) : limits_(limits) {}
  KeyUse(const KeyUse&) = delete;
  KeyUse& operator=(const KeyUse&) = delete;

  int64_t num_requests() const;
  int64_t num_tokens() const;

 private:
  friend class KeySlot;

  const KeyLimits limits_;
  mutable std::mutex mutex_;
  int64_t num_requests_ = 0;
  int64_t num_tokens_ = 0;
};

// The place of one request among those of its key. Its calls come one at a time.
class KeySlot {
 public:
  KeySlot() = default;  // takes no place
  ~KeySlot() { give_back(); }
  KeySlot(const KeySlot&) = delete;
  KeySlot& operator=(const KeySlot&) = delete;

  // kResourceExhausted names the limit. Nothing to do where `use` is null: there is no key.
  absl::Status take(std::shared_ptr<KeyUse> use);
  // Adds the request's tokens, once; before take() it does nothing. kInvalidArgument if they would
  // never fit.
  absl::Status charge(int64_t num_tokens);
  // What was taken and charged is free again. Idempotent.
  void give_back();

 private:
  std::shared_ptr<KeyUse> use_;  // null: no place
  int64_t num_tokens_ = 0;
};

}  // namespace pbserve::server
