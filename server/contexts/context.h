// A named context: the beginning of prompts, sent once and used by many requests. Plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "server/contexts/context_tokens.h"
#include "server/key_use.h"

namespace pbserve::server {

using ContextClock = std::chrono::steady_clock;

// What a context is made with.
struct ContextHeader {
  std::string name = {};  // for people; need not be unique
  std::string cache_salt = {};
  engine::SparseAttention sparse = {};
  bool add_special_tokens = true;
  int64_t priority = 0;               // of its prefill
  std::optional<int64_t> ttl_s = {};  // unset: contexts.default_ttl_s
};

// What its owner is told.
struct ContextInfo {
  std::string id;
  std::string name;
  bool is_ready = false;  // no more parts come
  int64_t num_parts = 0;
  int64_t num_tokens = 0;        // decided so far
  int64_t num_tail_bytes = 0;    // of text whose tokens the next part, or a prompt, decides
  int64_t prefilled_tokens = 0;  // whose pages have been computed; the cache may have evicted them
  int64_t bytes = 0;             // of the server's memory
  int64_t ttl_s = 0;             // after its last part or use
  int64_t created_s = 0;         // Unix time
  int64_t expires_s = 0;         // Unix time
};

// The mutex of the store guards it, but for the tokens of one that is ready, which stay.
struct Context {
  explicit Context(const ContextHeader& the_header)
      : header(the_header), tokens(the_header.add_special_tokens) {}

  const ContextHeader header;
  std::string id;
  std::shared_ptr<KeyUse> owner;  // the API key; null where none was asked for
  ContextTokens tokens;
  bool is_ready = false;
  bool is_taking = false;  // a part is being tokenised
  bool is_gone = false;    // deleted or expired: whoever works for it stops
  int64_t num_parts = 0;
  int64_t charged_bytes = 0;
  std::chrono::seconds ttl{0};
  std::chrono::system_clock::time_point created;
  ContextClock::time_point expires;

  // Its prefill, one request at a time.
  bool is_prefilling = false;
  std::optional<engine::Engine::Handle> prefill;  // once the engine has taken it
  int64_t prefilled_tokens = 0;
  int64_t asked_tokens = 0;  // of the last request that did not fail
  ContextClock::time_point retry_at{};
};

}  // namespace pbserve::server
