// EngineLoop: the thread that owns all engine state, and the queue by which the others talk to it.
// Each turn: take messages, plan a step, launch it, read a step back, pass its tokens on.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "engine/config.h"
#include "engine/engine.h"
#include "engine/live_requests.h"
#include "engine/message_queue.h"
#include "engine/model_runner.h"
#include "engine/output_stage.h"
#include "engine/queue_bounds.h"
#include "engine/scheduler.h"

namespace pbserve::engine {

class EngineLoop {
 public:
  // Everything referred to outlives the loop. The thread starts here.
  EngineLoop(const EngineConfig& config, const RunnerLimits& limits, KvCachePool& pool,
             ModelRunner& runner, const models::Tokenizer& tokenizer, Metrics& metrics);
  ~EngineLoop();  // cancels what is left and delivers every on_done

  // Any thread. kResourceExhausted: the queue is full; kUnavailable: draining. Both carry
  // kRetryAfterPayload. The first tells of a request that nothing is known of yet.
  absl::Status check_queue() const;
  absl::Status submit(SequenceSpec spec, OutputRules rules, std::unique_ptr<ResponseSink> sink);
  void cancel(SequenceId id);
  bool drain(std::chrono::milliseconds timeout);
  EngineLoad load() const;
  double stalled_s() const;
  double queue_fill() const { return bounds_.fill(); }

 private:
  struct NewRequest {
    SequenceSpec spec;
    OutputRules rules;
    std::unique_ptr<ResponseSink> sink;
    QueueBounds::Arrival arrival;
  };
  struct Cancel {
    SequenceId id;
    FinishReason reason = FinishReason::kCancelled;  // or kStop: a stop string has ended it
  };
  struct CancelAll {};
  using Message = std::variant<NewRequest, Cancel, CancelAll>;

  void run();
  bool receive(bool may_sleep);
  void handle(NewRequest request);
  void handle(Cancel cancel);
  void handle(CancelAll all);
  bool take_turn();
  void launch(const StepPlan& plan);
  void commit(const StepOutput& output);
  void finish(FinishedSequence finished);
  void report_progress(const std::vector<PrefillChunk>& job, const SliceReport& report);
  void collect(int may_stay);
  void publish_load(const std::optional<QueueBounds::Arrival>& arrived = {});

  const bool is_forced_;  // pbs.force_density
  const bool overlaps_;   // a step stays in flight while the next one is planned
  KvCachePool& pool_;
  ModelRunner& runner_;
  Metrics& metrics_;
  MessageQueue<Message> inbox_;  // before output_, whose thread sends cancels until it ends
  Scheduler scheduler_;
  OutputStage output_;

  // Engine thread only.
  std::vector<Message> messages_;
  int64_t num_preemptions_seen_ = 0;

  // Written by the engine thread, read by all.
  std::atomic<int64_t> num_running_ = 0;
  std::atomic<int64_t> num_pages_used_ = 0;
  std::atomic<int64_t> num_pages_cached_ = 0;
  std::atomic<Clock::time_point> last_turn_ = Clock::now();

  QueueBounds bounds_;
  LiveRequests live_;                                               // closed by a drain
  std::atomic<Clock::time_point> drain_end_ = Clock::time_point{};  // set before that

  std::thread thread_;
};

}  // namespace pbserve::engine
