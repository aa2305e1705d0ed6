// OutputStage: tokens in, text out, on its own thread: decodes, holds back what could be the
// beginning of a stop string, cuts at the first match, calls the sinks. The engine thread only
// appends to a queue and never waits.
//
// Events of one request come in this order: start, accepted?, (progress | token)*, finish. A finish
// must follow every start; what is missing when the stage is destroyed is finished as cancelled.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/message_queue.h"
#include "engine/metrics.h"
#include "engine/request.h"
#include "models/tokenizer/tokenizer.h"

namespace pbserve::engine {

struct OutputRules {
  std::vector<std::string> stop_strings;  // none of them empty
  int64_t min_tokens = 0;                 // a stop string completed before this many is text
  bool include_stop_string = false;
  bool skip_special_tokens = true;
};

enum class TokenRole : uint8_t {
  kText,
  kEnd,  // an end-of-text or stop token that ended the sequence: counted; printed only if
         // OutputRules::include_stop_string, like a stop string
};

class OutputStage {
 public:
  using Handle = uint64_t;
  // Called on the output thread when a stop string ends a request: the engine cancels the sequence
  // and sends finish() as always. Tokens that come in between are dropped.
  using OnStop = std::function<void(Handle)>;

  // `tokenizer` and `metrics` outlive the stage.
  OutputStage(const models::Tokenizer& tokenizer, Metrics& metrics, OnStop on_stop);
  ~OutputStage();  // delivers everything that was sent before
  OutputStage(const OutputStage&) = delete;
  OutputStage& operator=(const OutputStage&) = delete;

  // All of these may be called from any thread and return at once.
  void start(Handle handle, OutputRules rules, std::unique_ptr<ResponseSink> sink,
             Clock::time_point submitted);
  void accepted(Handle handle, const Accepted& accepted);
  void progress(Handle handle, const PrefillProgress& progress);
  void token(Handle handle, int32_t id, TokenRole role, Clock::time_point sampled);

  // The stage sets usage.completion_tokens and the timings from first_token_ms on; where a stop
  // string ended the request also status, reason and matched_stop. The rest is the engine's.
  void finish(Handle handle, Completion completion);

 private:
  struct Start {
    OutputRules rules;
    std::unique_ptr<ResponseSink> sink;
    Clock::time_point submitted;
  };
  struct Token {
    int32_t id;
    TokenRole role;
    Clock::time_point sampled;
  };
  struct Event {
    Handle handle;
    std::variant<Start, Accepted, PrefillProgress, Token, Completion> what;
  };
  class Stream;  // the state of one request

  void send(Event event);
  void run();
  void deliver(Event event);

  const models::Tokenizer& tokenizer_;
  Metrics& metrics_;
  OnStop on_stop_;
  MessageQueue<Event> events_;
  std::unordered_map<Handle, std::unique_ptr<Stream>> streams_;  // output thread only
  std::thread thread_;
};

}  // namespace pbserve::engine
