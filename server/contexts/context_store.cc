#include "server/contexts/context_store.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"
#include "server/contexts/context_state.h"
#include "server/contexts/prefiller.h"
#include "server/request_id.h"

namespace pbserve::server {
namespace {

// Of text or ids, before they are tokenised.
int64_t bytes_of(const engine::Prompt& part) {
  if (const auto* text = std::get_if<std::string>(&part)) return std::ssize(*text);
  const auto& ids = std::get<std::vector<int32_t>>(part);
  return static_cast<int64_t>(ids.size() * sizeof(int32_t));
}

ContextInfo info_of(const Context& context, ContextClock::time_point now) {
  using Seconds = std::chrono::seconds;
  const auto unix_s = [](std::chrono::system_clock::time_point time) {
    return std::chrono::duration_cast<Seconds>(time.time_since_epoch()).count();
  };
  const auto left = std::chrono::duration_cast<std::chrono::system_clock::duration>(
      std::max(context.expires - now, ContextClock::duration::zero()));
  return {.id = context.id,
          .name = context.header.name,
          .is_ready = context.is_ready,
          .num_parts = context.num_parts,
          .num_tokens = std::ssize(context.tokens.decided()),
          .num_tail_bytes = std::ssize(context.tokens.tail()),
          .prefilled_tokens = context.prefilled_tokens,
          .bytes = context.charged_bytes,
          .ttl_s = context.ttl.count(),
          .created_s = unix_s(context.created),
          .expires_s = unix_s(std::chrono::system_clock::now() + left)};
}

// The end of an append, whatever ends it.
class Taking {
 public:
  Taking(ContextState* state, Context* context) : state_(state), context_(context) {}
  ~Taking() {
    const std::lock_guard lock(state_->mutex);
    context_->is_taking = false;
  }
  Taking(const Taking&) = delete;
  Taking& operator=(const Taking&) = delete;

 private:
  ContextState* const state_;
  Context* const context_;
};

}  // namespace

ContextEngine context_engine(engine::Engine* engine) {
  return {.tokenize = [engine](const engine::Prompt& prompt,
                               bool special) { return engine->tokenize(prompt, special); },
          .check = [engine](const engine::Request& request) -> absl::Status {
            return engine->render(request).status();
          },
          .submit =
              [engine](engine::Request request, std::unique_ptr<engine::ResponseSink> sink) {
                return engine->submit(std::move(request), std::move(sink));
              },
          .cancel = [engine](engine::Engine::Handle handle) { engine->cancel(handle); },
          .page_size = engine->info().page_size,
          .max_model_len = engine->info().max_model_len,
          .pbs = engine->info().config.pbs};
}

ContextStore::ContextStore(ContextEngine engine, const ContextOptions& options)
    : state_(std::make_shared<ContextState>(std::move(engine), options)),
      prefiller_([state = state_] { run_prefills(state); }) {}

ContextStore::~ContextStore() { stop(); }

void ContextStore::stop() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->is_stopped = true;
    for (const auto& [id, context] : state_->contexts) {
      if (context->prefill) state_->engine.cancel(*context->prefill);
    }
  }
  state_->changed.notify_all();
  if (prefiller_.joinable()) prefiller_.join();
}

absl::StatusOr<ContextInfo> ContextStore::create(const Caller& caller, const ContextHeader& header,
                                                 Part part) {
  RETURN_IF_ERROR(check_header(state_->engine, state_->options, header));
  const auto context = std::make_shared<Context>(header);
  context->id = absl::StrCat("ctx-", make_request_id());
  context->owner = caller.key_use;
  context->ttl = std::chrono::seconds(header.ttl_s.value_or(state_->options.default_ttl_s));
  context->created = std::chrono::system_clock::now();
  {
    const std::lock_guard lock(state_->mutex);
    RETURN_IF_ERROR(add(state_.get(), context));
  }
  if (!part.prompt && !part.is_last) return get(caller, context->id);
  absl::StatusOr<ContextInfo> info = append(caller, context->id, std::move(part));
  if (!info.ok()) (void)remove(caller, context->id);
  return info;
}

absl::StatusOr<ContextInfo> ContextStore::append(const Caller& caller, const std::string& id,
                                                 Part part) {
  std::shared_ptr<Context> context;
  {
    const std::lock_guard lock(state_->mutex);
    ASSIGN_OR_RETURN(context, find(state_.get(), caller, id));
    const int64_t more = part.prompt ? bytes_of(*part.prompt) : 0;
    RETURN_IF_ERROR(check_part(*state_, *context, context->charged_bytes + more));
    context->is_taking = true;
  }
  // Until it is over this thread alone looks at the tokens, or changes them.
  const Taking taking(state_.get(), context.get());
  const Tokenize& tokenize = state_->engine.tokenize;
  const engine::Prompt nothing = std::string();
  ASSIGN_OR_RETURN(ContextTokens::Growth growth,
                   context->tokens.grown_by(tokenize, part.prompt ? *part.prompt : nothing));
  int64_t num_tail_tokens = 0;  // at the end they count too
  if (part.is_last && !growth.tail.empty()) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> end, tokenize(growth.tail, growth.adds_special));
    num_tail_tokens = std::ssize(end);
  }
  const std::lock_guard lock(state_->mutex);
  if (context->is_gone) return context_not_found(id);
  RETURN_IF_ERROR(take_part(state_.get(), context.get(), std::move(growth), num_tail_tokens));
  if (part.prompt) ++context->num_parts;
  if (part.is_last) context->is_ready = true;
  const ContextClock::time_point now = state_->engine.now();
  context->expires = now + context->ttl;
  state_->changed.notify_all();
  return info_of(*context, now);
}

absl::StatusOr<ContextInfo> ContextStore::get(const Caller& caller, const std::string& id) const {
  const std::lock_guard lock(state_->mutex);
  ASSIGN_OR_RETURN(const std::shared_ptr<Context> context, find(state_.get(), caller, id));
  return info_of(*context, state_->engine.now());
}

std::vector<ContextInfo> ContextStore::list(const Caller& caller) const {
  const std::lock_guard lock(state_->mutex);
  drop_expired(state_.get());
  const ContextClock::time_point now = state_->engine.now();
  std::vector<const Context*> own;
  for (const auto& [id, context] : state_->contexts) {
    if (context->owner == caller.key_use) own.push_back(context.get());
  }
  std::ranges::sort(own, {}, [](const Context* context) {
    return std::pair(context->created, std::string_view(context->id));
  });
  std::vector<ContextInfo> infos;
  for (const Context* context : own) infos.push_back(info_of(*context, now));
  return infos;
}

absl::Status ContextStore::remove(const Caller& caller, const std::string& id) {
  const std::lock_guard lock(state_->mutex);
  RETURN_IF_ERROR(find(state_.get(), caller, id).status());
  drop(state_.get(), id);
  return absl::OkStatus();
}

absl::Status ContextStore::use(const Caller& caller, const std::string& id,
                               engine::Request* request) {
  std::shared_ptr<const Context> context;
  {
    const std::lock_guard lock(state_->mutex);
    ASSIGN_OR_RETURN(const std::shared_ptr<Context> found, find(state_.get(), caller, id));
    if (!found->is_ready) {
      return context_conflict(absl::StrCat("context ", id, " is open: send its last part first"));
    }
    found->expires = state_->engine.now() + found->ttl;
    context = found;
  }
  ASSIGN_OR_RETURN(request->prompt,
                   context->tokens.followed_by(state_->engine.tokenize, request->prompt));
  request->add_special_tokens = false;
  request->cache_salt = context->header.cache_salt;
  const engine::SparseAttention sparse = attention_of(state_->engine.pbs, *context);
  if (!request->sparse.mode) request->sparse.mode = sparse.mode;
  if (!request->sparse.threshold) request->sparse.threshold = sparse.threshold;
  return absl::OkStatus();
}

ContextStore::Totals ContextStore::totals() const {
  const std::lock_guard lock(state_->mutex);
  drop_expired(state_.get());
  return {.num_contexts = std::ssize(state_->contexts), .bytes = state_->num_bytes};
}

}  // namespace pbserve::server
