// What a store holds, and its bounds. Functions that take a state are called with its mutex held.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "server/contexts/context_store.h"

namespace pbserve::server {

// What a context takes beside its tokens and its texts.
inline constexpr int64_t kContextBytes = 1024;

struct ContextState {
  ContextState(ContextEngine the_engine, const ContextOptions& the_options)
      : engine(std::move(the_engine)), options(the_options) {}

  const ContextEngine engine;
  const ContextOptions options;
  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::map<std::string, std::shared_ptr<Context>> contexts;  // by id
  int64_t num_bytes = 0;                                     // of all that are in the map
  bool is_stopped = false;
};

absl::Status check_header(const ContextEngine& engine, const ContextOptions& options,
                          const ContextHeader& header);

// Puts a context into the map, if there may be one more of its owner.
absl::Status add(ContextState* state, const std::shared_ptr<Context>& context);
// The caller's own, unless its time is over.
absl::StatusOr<std::shared_ptr<Context>> find(ContextState* state, const Caller& caller,
                                              const std::string& id);
// Whether it may take a part now that makes it `bytes` large.
absl::Status check_part(const ContextState& state, const Context& context, int64_t bytes);
// `num_tail_tokens` are those of the text that stays undecided, if no more comes.
absl::Status take_part(ContextState* state, Context* context, ContextTokens::Growth growth,
                       int64_t num_tail_tokens);

// Of prompts that begin with the context: dense or PBS, as far as it can be known before its last
// part has come; unset before.
engine::SparseAttention attention_of(const engine::PbsOptions& pbs, const Context& context);

void drop(ContextState* state, const std::string& id);
void drop_expired(ContextState* state);

}  // namespace pbserve::server
