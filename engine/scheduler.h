// Scheduler: from sequences and free pages to a StepPlan, under budgets of tokens, sequences and
// pages. Touches no device. Used by the engine thread alone.
//
// A step is one decode row for every generating sequence, then a slice of one prefill lane. Waiting
// sequences start in order of arrival; one that waits for a busy lane is passed by, one that waits
// for pages is not. Pages for a whole prompt are taken when it starts; when a generating sequence
// finds no page, the youngest one gives up its pages and is computed again later.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "engine/kv_cache_pool.h"
#include "engine/prefill_chunks.h"
#include "engine/queue_bounds.h"
#include "engine/sequence.h"
#include "engine/step.h"

namespace pbserve::engine {

struct SchedulerLimits {
  int32_t num_slots = 1;  // sequences that hold pages at a time
  ChunkRules chunks;
  double slice_ms = 100;
  bool prefix_caching = true;
};

struct FinishedSequence {
  std::unique_ptr<Sequence> sequence;  // its pages are given back already
  FinishReason reason = FinishReason::kStop;
  absl::Status status;
};

class Scheduler {
 public:
  // `pool` outlives the scheduler.
  Scheduler(const SchedulerLimits& limits, KvCachePool& pool);

  void add(SequenceSpec spec);

  // Takes a sequence out in whatever phase it is; nothing if it has left already.
  std::optional<FinishedSequence> remove(SequenceId id, FinishReason reason, absl::Status status);

  // Sequences whose deadline has passed. Called before a step is planned.
  std::vector<FinishedSequence> take_expired(Clock::time_point time);
  // The first waiting sequence, if an idle engine could not start it: it never will.
  // REQUIRES: nothing is in flight and the plan just made is empty.
  std::optional<FinishedSequence> take_stuck();

  StepPlan plan_step(Clock::time_point time);
  void launched(const StepPlan& plan, const LaunchReport& report, Clock::time_point time);
  // Appends the tokens that belong to live sequences to `tokens`, in the output's order.
  std::vector<FinishedSequence> commit(const StepOutput& output, std::vector<SampledToken>& tokens);

  const SequenceMap& sequences() const { return sequences_; }
  // The chunks of a lane's present job; empty where it is idle.
  const std::vector<PrefillChunk>& job(Lane lane) const;

  // Of a prompt that has not started: what it would not compute if it started now. Less than the
  // prefix cache holds where a PBS prompt may use whole spans only. REQUIRES: it is in sequences().
  int64_t num_cached_tokens(SequenceId id) const;

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_running() const;
  QueueState queue() const;  // what is ahead of a newcomer
  // Where a prompt of such a length goes unless cached pages make it short. Any thread.
  Lane lane_of(int64_t num_tokens, bool pbs) const;
  int64_t num_preemptions() const { return num_preemptions_; }

  // Dies unless every page is free, cached, or held by exactly the sequences and jobs listed here,
  // and phases, slots and lanes agree.
  void check_integrity() const;

 private:
  struct LaneState {
    std::vector<PrefillChunk> chunks;
    std::vector<BlockTable> orphans;  // pages the job still writes, of sequences that have left
    bool abort = false;               // tell the runner with the next plan
    bool idle() const { return chunks.empty(); }
  };

  void plan_lanes(StepPlan& plan, Clock::time_point time);
  void continue_long_prompt(StepPlan& plan);
  void admit_waiting(StepPlan& plan, Clock::time_point time);
  enum class Admission : uint8_t { kStarted, kLaneBusy, kNoPages };
  Admission try_admit(Sequence& sequence, std::vector<LaneStart>& starts, Clock::time_point time);
  bool fits_short_lane(const PrefillChunk& chunk) const;
  void plan_decode(StepPlan& plan);
  bool take_page_for(Sequence& sequence, std::vector<Sequence*>& generating);
  void preempt(Sequence& sequence);
  void finish_job(Lane lane, Clock::time_point time);
  void cache_pages(Sequence& sequence);
  FinishedSequence release(Sequence& sequence, FinishReason reason, absl::Status status);
  LaneState& state(Lane lane) { return lanes_[static_cast<size_t>(lane)]; }

  SchedulerLimits limits_;
  KvCachePool& pool_;
  SequenceMap sequences_;
  std::deque<SequenceId> waiting_;   // in order of arrival, preempted ones in front
  std::vector<SequenceId> running_;  // in order of admission
  std::vector<int32_t> free_slots_;
  std::array<LaneState, kNumLanes> lanes_;
  Lane last_lane_ = Lane::kShort;
  int64_t next_step_ = 1;
  int64_t num_preemptions_ = 0;
};

}  // namespace pbserve::engine
