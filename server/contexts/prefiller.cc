#include "server/contexts/prefiller.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

namespace pbserve::server {
namespace {

// What is short, a place in the queue or among those of the key, is free again at any moment.
constexpr std::chrono::seconds kRetry{1};
// Between two looks at what expires.
constexpr std::chrono::seconds kSweep{1};

// Only a context that has a page, or a span of PBS, more than was asked for is worth a request.
int64_t unit_of(const ContextEngine& engine, const engine::SparseAttention& sparse) {
  if (sparse.mode != engine::SparseMode::kPbs) return engine.page_size;
  return std::max(engine.page_size, engine.pbs.span);
}

bool is_due(const ContextState& state, const Context& context) {
  if (context.is_prefilling || context.retry_at > state.engine.now()) return false;
  const engine::SparseAttention sparse = attention_of(state.engine.pbs, context);
  if (!sparse.mode) return false;
  // No span of such a prompt is complete before its end: nothing of it can be used again.
  if (sparse.mode == engine::SparseMode::kPbs && state.engine.pbs.span == 0) return false;
  const int64_t num_tokens = std::ssize(context.tokens.decided());
  const int64_t unit = unit_of(state.engine, sparse);
  if (num_tokens / unit > context.asked_tokens / unit) return true;
  return context.is_ready && num_tokens >= unit && num_tokens > context.asked_tokens;
}

// Hears of one prefill. The engine destroys it after on_done: then its place among those of the
// key is free.
class PrefillSink : public engine::ResponseSink {
 public:
  PrefillSink(std::shared_ptr<ContextState> state, std::shared_ptr<Context> context,
              std::shared_ptr<KeySlot> slot)
      : state_(std::move(state)), context_(std::move(context)), slot_(std::move(slot)) {}

  void on_accepted(const engine::Accepted&) override {}
  void on_progress(const engine::PrefillProgress& progress) override {
    const std::lock_guard lock(state_->mutex);
    note(progress.processed_tokens);
  }
  void on_text(engine::TextDelta) override {}
  void on_done(const engine::Completion& completion) override {
    slot_->give_back();
    {
      const std::lock_guard lock(state_->mutex);
      context_->is_prefilling = false;
      context_->prefill.reset();
      if (completion.status.ok()) {
        if (completion.reason != engine::FinishReason::kCancelled) {
          note(completion.usage.prompt_tokens);
        }
      } else if (!absl::IsCancelled(completion.status)) {
        spdlog::warn("context {}: its prefill failed: {}", context_->id,
                     std::string(completion.status.message()));
      }
    }
    state_->changed.notify_all();
  }

 private:
  void note(int64_t num_tokens) {
    context_->prefilled_tokens = std::max(context_->prefilled_tokens, num_tokens);
  }

  const std::shared_ptr<ContextState> state_;
  const std::shared_ptr<Context> context_;
  const std::shared_ptr<KeySlot> slot_;
};

// What a context asks of its pages.
engine::Request prefill_request(const ContextState& state, const Context& context) {
  engine::Request request;
  request.id = context.id;
  request.prompt = context.tokens.decided();
  request.add_special_tokens = false;
  request.cache_salt = context.header.cache_salt;
  request.priority = context.header.priority;
  request.sparse = attention_of(state.engine.pbs, context);
  request.sampling.temperature = 0.0f;
  request.stop.max_tokens = 1;  // the engine draws one with the last row; nobody reads it
  return request;
}

absl::StatusOr<engine::Engine::Handle> submit(const std::shared_ptr<ContextState>& state,
                                              const std::shared_ptr<Context>& context,
                                              engine::Request request) {
  const auto slot = std::make_shared<KeySlot>();
  RETURN_IF_ERROR(slot->take(context->owner));
  request.on_sized = [slot](int64_t num_tokens) { return slot->charge(num_tokens); };
  return state->engine.submit(std::move(request),
                              std::make_unique<PrefillSink>(state, context, slot));
}

void start_prefill(const std::shared_ptr<ContextState>& state,
                   const std::shared_ptr<Context>& context, std::unique_lock<std::mutex>* lock) {
  const int64_t num_tokens = std::ssize(context->tokens.decided());
  context->is_prefilling = true;
  absl::StatusOr<engine::Engine::Handle> handle = absl::ResourceExhaustedError("no memory");
  try {
    engine::Request request = prefill_request(*state, *context);
    lock->unlock();
    handle = submit(state, context, std::move(request));
  } catch (const std::bad_alloc&) {  // there may be some in a moment
  }
  if (!lock->owns_lock()) lock->lock();
  if (!handle.ok()) {
    context->is_prefilling = false;
    // More than the key may ever have in flight: its requests compute the pages they need.
    if (absl::IsInvalidArgument(handle.status())) context->asked_tokens = num_tokens;
    context->retry_at = state->engine.now() + kRetry;
    return;
  }
  context->asked_tokens = num_tokens;
  if (!context->is_prefilling) return;  // it has ended already
  context->prefill = *handle;
  if (context->is_gone || state->is_stopped) state->engine.cancel(*handle);
}

std::shared_ptr<Context> next_due(const ContextState& state) {
  for (const auto& [id, context] : state.contexts) {
    if (is_due(state, *context)) return context;
  }
  return nullptr;
}

}  // namespace

void run_prefills(const std::shared_ptr<ContextState>& state) {
  std::unique_lock lock(state->mutex);
  while (!state->is_stopped) {
    drop_expired(state.get());
    if (const std::shared_ptr<Context> context = next_due(*state)) {
      start_prefill(state, context, &lock);
    } else {
      state->changed.wait_for(lock, kSweep);
    }
  }
}

}  // namespace pbserve::server
