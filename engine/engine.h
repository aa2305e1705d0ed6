// Engine: the only door into the serving core. Owns the model, the cache, the threads. One thread
// owns all state that changes; callers talk to it through bounded queues.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/cache_listener.h"
#include "engine/config.h"
#include "engine/metrics.h"
#include "engine/request.h"

namespace pbserve::engine {

// Fixed at start-up.
struct EngineInfo {
  std::string model_name;
  std::string architecture;
  std::string device;  // "CPU: AMD EPYC, 2 threads"
  std::string dtype;
  int64_t max_model_len = 0;        // tokens of prompt and output together
  std::string max_model_len_limit;  // what keeps it from being longer
  int64_t num_pages = 0;
  int64_t page_size = 0;  // tokens
  int64_t vocab_size = 0;
  std::string sparse_attention;  // "pbs query top_p 0.75 span 1024 segment 256 ..."
  EngineConfig config;           // in force: what was automatic is what was chosen
};

struct EngineLoad {
  int64_t num_running = 0;  // prefilling or decoding
  int64_t num_waiting = 0;
  int64_t num_pages_used = 0;    // held by requests
  int64_t num_pages_cached = 0;  // held by the prefix cache alone
};

class Engine {
 public:
  // Loads the model and takes all memory. Errors say what is wrong with which file or limit.
  static absl::StatusOr<std::unique_ptr<Engine>> create(const EngineConfig& config);
  ~Engine();  // cancels what is left
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Tells `listener`, which outlives the engine, of the prefix cache. Before the first request.
  void set_cache_listener(CacheListener* listener);

  using Handle = uint64_t;

  // Thread-safe, without blocking: what submit() would refuse any request with now. Changes
  // nothing; to be asked before work is put into a request.
  absl::Status check_queue() const;

  // Thread-safe; renders, tokenises and validates on the calling thread, then queues. If it fails
  // the sink is destroyed unused:
  //   kInvalidArgument    a field is wrong, or the prompt is too long: names field, value, limit
  //   kResourceExhausted  the queue is full, which is looked at before any work and after it
  //   kUnavailable        draining
  // The latter two say in kRetryAfterPayload when to try again.
  absl::StatusOr<Handle> submit(Request request, std::unique_ptr<ResponseSink> sink);

  // What submit() would queue, without queueing it. Thread-safe; fails where the request is wrong.
  absl::StatusOr<RenderedRequest> render(const Request& request) const;

  // Thread-safe, idempotent; the sink's on_done follows with kCancelled unless it came before.
  void cancel(Handle handle);

  // Refuses new requests from here on. Returns true when the running ones have finished, false if
  // `timeout_ms` passed first; what is left is cancelled then.
  bool drain(int64_t timeout_ms);

  absl::StatusOr<std::vector<int32_t>> tokenize(const Prompt& prompt,
                                                bool add_special_tokens) const;
  absl::StatusOr<std::string> detokenize(std::span<const int32_t> ids) const;
  std::string token_text(int32_t id) const;

  const EngineInfo& info() const;
  EngineLoad load() const;
  // How full the queue is, the fullest of its bounds: from 1 on requests are refused.
  double queue_fill() const;
  // Seconds since the engine last took a turn although it has requests; 0 while it has none.
  double stalled_s() const;
  const Metrics& metrics() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::engine
