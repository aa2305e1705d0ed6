// The named contexts of all callers: bounded in number and bytes, gone after their time to live,
// and each seen by the API key that made it alone. A thread lets the engine compute the pages of
// what has come while more comes. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "server/caller.h"
#include "server/config/config.h"
#include "server/contexts/context.h"

namespace pbserve::server {

// What contexts need of the engine, and of the clock.
struct ContextEngine {
  Tokenize tokenize;
  std::function<absl::Status(const engine::Request&)> check;
  std::function<absl::StatusOr<engine::Engine::Handle>(engine::Request,
                                                       std::unique_ptr<engine::ResponseSink>)>
      submit;
  std::function<void(engine::Engine::Handle)> cancel;
  std::function<ContextClock::time_point()> now = ContextClock::now;
  int64_t page_size = 1;  // tokens
  int64_t max_model_len = 0;
  engine::PbsOptions pbs;
};
ContextEngine context_engine(engine::Engine* engine);

struct ContextState;

class ContextStore {
 public:
  ContextStore(ContextEngine engine, const ContextOptions& options);
  ~ContextStore();  // stop()
  ContextStore(const ContextStore&) = delete;
  ContextStore& operator=(const ContextStore&) = delete;

  struct Part {
    std::optional<engine::Prompt> prompt;  // a text or token ids
    bool is_last = false;                  // the context is ready afterwards
  };

  // Both tokenise on the calling thread; a failure changes nothing.
  //   kInvalidArgument    a field is wrong, or the context would not fit into the model's
  //   kResourceExhausted  there are as many contexts, or bytes of them, as there may be
  //   kAborted            it is ready already, or takes another part at this moment
  absl::StatusOr<ContextInfo> create(const Caller& caller, const ContextHeader& header, Part part);
  absl::StatusOr<ContextInfo> append(const Caller& caller, const std::string& id, Part part);

  // kNotFound where there is none of that id, or it is somebody else's.
  absl::StatusOr<ContextInfo> get(const Caller& caller, const std::string& id) const;
  std::vector<ContextInfo> list(const Caller& caller) const;  // the oldest first
  absl::Status remove(const Caller& caller, const std::string& id);

  // Puts the context before the request's prompt, a text or token ids; its salt and, where the
  // request says nothing, its attention become the request's. The time to live begins anew.
  absl::Status use(const Caller& caller, const std::string& id, engine::Request* request);

  // Nothing is prefilled any more; what is under way is cancelled. Idempotent.
  void stop();

  struct Totals {
    int64_t num_contexts = 0;
    int64_t bytes = 0;
  };
  Totals totals() const;

 private:
  const std::shared_ptr<ContextState> state_;  // the sinks of prefills hold it too
  std::jthread prefiller_;
};

}  // namespace pbserve::server
