// What a client asks for, and what it gets back. Plain values: the server fills a Request and
// implements ResponseSink; it never sees a tensor.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/core/status.h"
#include "models/field_error.h"

namespace pbserve::engine {

using Clock = std::chrono::steady_clock;

inline double ms_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

// What is wrong with a request names its field, as the client wrote it, in this payload of the
// Status.
inline constexpr const char* kFieldPayload = models::kFieldPayload;

// What was refused for the moment says in this payload, in whole seconds, when to try again.
inline constexpr const char* kRetryAfterPayload = "pbserve/retry_after_s";

// An OpenAI conversation, as JSON text; the model's chat template renders it.
struct ChatPrompt {
  std::string messages_json;
  std::string tools_json;            // or empty
  std::string template_kwargs_json;  // or empty
};

using Prompt = std::variant<std::string, std::vector<int32_t>, ChatPrompt>;

enum class SparseMode : uint8_t {
  kAuto,  // PBS from pbs.min_tokens on, dense below
  kDense,
  kPbs,  // PBS whatever the length
};

struct SparseAttention {
  std::optional<SparseMode> mode;  // unset: the server's pbs.mode
  std::optional<float> threshold;  // unset: the server's pbs.threshold
};

// Unset fields take generation_config.json's value, else the one written here.
struct SamplingParams {
  std::optional<float> temperature;  // 1; 0 is greedy
  std::optional<float> top_p;        // 1
  std::optional<int32_t> top_k;      // 0 = all
  float min_p = 0.0f;
  std::optional<uint64_t> seed;  // random
};

struct StopRules {
  std::optional<int64_t> max_tokens;          // unset: the default, or up to the context limit
  std::optional<int64_t> default_max_tokens;  // of the API; unlike max_tokens cut to what fits
  int64_t min_tokens = 0;                     // no end of text and no stop string before this many
  std::vector<std::string> strings;
  std::vector<int32_t> token_ids;
  bool ignore_eos = false;
  bool include_stop_string = false;  // keep the matched stop string in the output
};

inline constexpr int64_t kPriorityMax = 16;  // of either sign

struct Request {
  std::string id;  // for logs and the response; unique is the caller's business
  Prompt prompt;
  bool add_special_tokens = true;   // what the tokenizer puts around a text. A chat's template
                                    // writes it: whoever parses one sets this to false
  bool skip_special_tokens = true;  // in the output
  SamplingParams sampling;
  StopRules stop;
  SparseAttention sparse;
  int64_t priority = 0;    // of prefill_order.h: lower goes first
  float cache_hold_s = 0;  // its cached pages are held so long once it has finished
  std::string cache_salt;  // requests with different salts never share cached pages
  std::optional<Clock::time_point> deadline;
  // Asked on the submitting thread before the request is queued, with the tokens of its prompt and
  // its longest output together: an error refuses it. Unset: nobody asks.
  std::function<absl::Status(int64_t num_tokens)> on_sized;
};

// A request as it would be queued: defaults filled in.
struct RenderedRequest {
  std::vector<int32_t> prompt;
  SamplingParams sampling;  // every field set but a seed that would be drawn
  int64_t max_tokens = 0;
};

enum class FinishReason : uint8_t { kStop, kLength, kCancelled, kError };

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // prompt tokens whose K/V came from the prefix cache
  int64_t completion_tokens = 0;
  std::optional<int64_t> cache_held_tokens = {};  // with cache_hold_s: those whose pages are held
};

// Durations of one request; -1 where the phase was not reached.
struct Timings {
  double queue_ms = -1;        // submit -> first slice of prefill
  double prefill_ms = -1;      // first slice -> prompt done
  double first_token_ms = -1;  // submit -> first token
  double generation_ms = -1;   // first token -> last token
  double mean_inter_token_ms = -1;
};

// What prefill attention actually computed.
struct SparseReport {
  SparseMode mode_used = SparseMode::kDense;  // kDense or kPbs
  double density = 1.0;                 // attended blocks / causal blocks, PBS spans and dense
                                        // spans together; 1 where nothing was computed
  std::vector<double> layer_densities;  // one per layer
  // Share of the true attention mass that sampled PBS queries attended: mean, and that of the
  // layer and of the head of a layer that kept least. Unset where nothing was sampled.
  struct Coverage {
    double mean = 1.0;
    double lowest_layer = 1.0;
    double lowest_head = 1.0;
  };
  std::optional<Coverage> coverage;
  bool is_forced = false;  // pbs.force_density: not what PBS would have chosen
};

struct Accepted {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;      // of these, not computed if it started at once
  int64_t queue_position = 0;     // requests that start earlier
  double estimated_ttft_ms = -1;  // from the measured prefill rate; -1 before there is one
};

struct PrefillProgress {
  int64_t processed_tokens = 0;  // of total, cached ones included; fractions of layers count
  int64_t total_tokens = 0;
  double elapsed_ms = 0;
  double eta_ms = -1;
};

struct TextDelta {
  std::string text;
  std::vector<int32_t> token_ids;
};

struct Completion {
  absl::Status status;  // not OK: why the request failed after it was accepted
  FinishReason reason = FinishReason::kStop;
  std::string matched_stop;  // the stop string that ended it, if one did
  Usage usage;
  Timings timings;
  SparseReport sparse;
};

// The receiving end of one request. Called from the engine's output thread, one call at a time, in
// this order: on_accepted, on_progress*, on_text*, on_done exactly once; after on_done the sink is
// destroyed. Calls must not block: a slow reader is the sink's to buffer, bound and cancel.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  virtual void on_accepted(const Accepted& accepted) = 0;
  virtual void on_progress(const PrefillProgress& progress) = 0;
  virtual void on_text(TextDelta delta) = 0;
  virtual void on_done(const Completion& completion) = 0;
};

}  // namespace pbserve::engine
