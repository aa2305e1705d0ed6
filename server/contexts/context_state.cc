#include "server/contexts/context_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

constexpr size_t kNameBytesMax = 128;

struct Held {
  int64_t num_contexts = 0;
  int64_t bytes = 0;
};

Held held_by(const ContextState& state, const std::shared_ptr<KeyUse>& owner) {
  Held held;
  for (const auto& [id, context] : state.contexts) {
    if (context->owner != owner) continue;
    ++held.num_contexts;
    held.bytes += context->charged_bytes;
  }
  return held;
}

absl::Status check_bytes(const ContextState& state, const Context& context, int64_t bytes) {
  const int64_t more = bytes - context.charged_bytes;
  const auto refused = [more](absl::string_view key, int64_t limit, absl::string_view whose,
                              int64_t held) {
    return contexts_full(absl::StrCat(more, " bytes more do not fit into ", key, " = ", limit, ": ",
                                      whose, " hold ", held,
                                      "; delete a context or wait until one expires"));
  };
  if (const int64_t limit = state.options.max_bytes; state.num_bytes + more > limit) {
    return refused("contexts.max_bytes", limit, "all contexts", state.num_bytes);
  }
  if (context.owner == nullptr) return absl::OkStatus();
  const int64_t held = held_by(state, context.owner).bytes;
  if (const int64_t limit = state.options.max_bytes_per_key; held + more > limit) {
    return refused("contexts.max_bytes_per_key", limit, "those of this API key", held);
  }
  return absl::OkStatus();
}

absl::Status check_count(const ContextState& state, const std::shared_ptr<KeyUse>& owner) {
  const auto refused = [](absl::string_view key, int64_t limit) {
    return contexts_full(absl::StrCat("there are ", key, " = ", limit,
                                      " contexts: delete one or wait until one expires"));
  };
  const int64_t limit = state.options.max_contexts;
  if (std::ssize(state.contexts) >= limit) return refused("contexts.max_contexts", limit);
  if (owner == nullptr) return absl::OkStatus();
  const int64_t own = state.options.max_contexts_per_key;
  if (held_by(state, owner).num_contexts >= own) {
    return refused("contexts.max_contexts_per_key", own);
  }
  return absl::OkStatus();
}

int64_t bytes_of(const Context& context, const ContextTokens::Growth& growth) {
  return kContextBytes + std::ssize(context.header.name) + std::ssize(context.header.cache_salt) +
         context.tokens.bytes_with(growth);
}

}  // namespace

absl::Status check_header(const ContextEngine& engine, const ContextOptions& options,
                          const ContextHeader& header) {
  if (header.name.size() > kNameBytesMax) {
    return invalid_field("name", absl::StrCat("name has ", header.name.size(), " bytes, at most ",
                                              kNameBytesMax, " are allowed"));
  }
  const int64_t ttl_s = header.ttl_s.value_or(options.default_ttl_s);
  if (ttl_s < 1 || ttl_s > options.max_ttl_s) {
    return invalid_field("ttl_s", absl::StrCat("ttl_s is ", ttl_s, ", must be in [1, ",
                                               options.max_ttl_s, "] (contexts.max_ttl_s)"));
  }
  engine::Request request;  // the ranges of the rest are the engine's
  request.prompt = std::vector<int32_t>{0};
  request.stop.max_tokens = 1;
  request.cache_salt = header.cache_salt;
  request.sparse = header.sparse;
  request.priority = header.priority;
  return engine.check(request);
}

absl::Status add(ContextState* state, const std::shared_ptr<Context>& context) {
  drop_expired(state);
  RETURN_IF_ERROR(check_count(*state, context->owner));
  const int64_t bytes = bytes_of(*context, {});
  RETURN_IF_ERROR(check_bytes(*state, *context, bytes));
  context->expires = state->engine.now() + context->ttl;
  state->contexts.emplace(context->id, context);
  context->charged_bytes = bytes;
  state->num_bytes += bytes;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Context>> find(ContextState* state, const Caller& caller,
                                              const std::string& id) {
  drop_expired(state);
  const auto found = state->contexts.find(id);
  const bool is_own = found != state->contexts.end() && found->second->owner == caller.key_use;
  if (!is_own) return context_not_found(id);
  return found->second;
}

absl::Status check_part(const ContextState& state, const Context& context, int64_t bytes) {
  if (context.is_ready) {
    return context_conflict(
        absl::StrCat("context ", context.id, " has had its last part, and takes no more"));
  }
  if (context.is_taking) {
    return context_conflict(absl::StrCat("context ", context.id,
                                         " takes another part at this moment: send the parts of a "
                                         "context one after the other"));
  }
  return check_bytes(state, context, bytes);
}

absl::Status take_part(ContextState* state, Context* context, ContextTokens::Growth growth,
                       int64_t num_tail_tokens) {
  const int64_t num_tokens =
      std::ssize(context->tokens.decided()) + std::ssize(growth.ids) + num_tail_tokens;
  const int64_t limit = state->engine.max_model_len - 1;
  if (num_tokens > limit) {
    return invalid_field(
        "prompt", absl::StrCat("the context would have ", num_tokens, " tokens, at most ", limit,
                               " fit into the model's with one of output"));
  }
  const int64_t bytes = bytes_of(*context, growth);
  RETURN_IF_ERROR(check_bytes(*state, *context, bytes));
  context->tokens.commit(std::move(growth));
  state->num_bytes += bytes - context->charged_bytes;
  context->charged_bytes = bytes;
  return absl::OkStatus();
}

engine::SparseAttention attention_of(const engine::PbsOptions& pbs, const Context& context) {
  engine::SparseAttention sparse = context.header.sparse;
  if (sparse.mode.value_or(pbs.mode) != engine::SparseMode::kAuto) {
    sparse.mode = sparse.mode.value_or(pbs.mode);
  } else if (std::ssize(context.tokens.decided()) >= pbs.min_tokens) {
    sparse.mode = engine::SparseMode::kPbs;
  } else {
    sparse.mode.reset();
    if (context.is_ready) sparse.mode = engine::SparseMode::kDense;
  }
  return sparse;
}

void drop(ContextState* state, const std::string& id) {
  const auto found = state->contexts.find(id);
  if (found == state->contexts.end()) return;
  Context& context = *found->second;
  context.is_gone = true;
  if (context.prefill) state->engine.cancel(*context.prefill);
  state->num_bytes -= context.charged_bytes;
  state->contexts.erase(found);
}

void drop_expired(ContextState* state) {
  const ContextClock::time_point now = state->engine.now();
  for (auto it = state->contexts.begin(); it != state->contexts.end();) {
    const std::string id = it->first;
    const bool is_over = it->second->expires <= now && !it->second->is_taking;
    ++it;
    if (is_over) drop(state, id);
  }
}

}  // namespace pbserve::server
