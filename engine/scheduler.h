// Scheduler: from sequences and free pages to a StepPlan, under budgets of tokens, sequences and
// pages. Touches no device. Used by the engine thread alone.
//
// A step is one decode row for every generating sequence, then a slice of one prefill job. Jobs are
// the unit of prefill: after each the next goes to the prompt that is first in prefill_order.h,
// whether it waits or has begun, so several prompts may be under way, each with the pages it has
// filled. A prompt starts when the pages it still needs are there beside those promised to the
// others under way and those the generating sequences are expected to grow by meanwhile; it takes
// them job by job. Generating sequences come first: one that finds no page takes it from the last
// prompt under way, which goes back to waiting with its pages in the prefix cache, and only then
// from the youngest generating one.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/kv_cache_pool.h"
#include "engine/lane_jobs.h"
#include "engine/prefill_chunks.h"
#include "engine/prefill_cost.h"
#include "engine/prefill_order.h"
#include "engine/queue_bounds.h"
#include "engine/sequence.h"
#include "engine/step.h"

namespace pbserve::engine {

struct SchedulerLimits {
  int32_t num_slots = 1;  // sequences that hold pages at a time
  ChunkRules chunks;
  PrefillCost::Prior cost{1, 0};
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

  // A plan is made, launched and, where it has one, its slice run, before the next one is made.
  // Times never go back.
  StepPlan plan_step(Clock::time_point time);
  void launched(const StepPlan& plan);
  void sliced(const StepPlan& plan, const SliceReport& report, Clock::time_point time);
  // Appends the tokens that belong to live sequences to `tokens`, in the output's order.
  std::vector<FinishedSequence> commit(const StepOutput& output, std::vector<SampledToken>& tokens);

  const SequenceMap& sequences() const { return sequences_; }
  // The chunks of a lane's present job; empty where it is idle.
  const std::vector<PrefillChunk>& job(Lane lane) const { return lanes_.chunks(lane); }

  // Of a prompt that has not started.
  struct Place {
    int64_t num_cached = 0;      // tokens it would not compute if it started now: less than the
                                 // cache holds where a PBS prompt may use whole spans only
    int64_t position = 0;        // prompts that wait and start before it
    double first_token_ms = -1;  // until its first token, by what all before it and it have left to
                                 // compute; -1 before a rate is known
  };
  // REQUIRES: it is in sequences().
  Place place_of(SequenceId id, Clock::time_point time);

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_running() const;
  QueueState queue(Clock::time_point time) const;  // what is ahead of a newcomer
  int64_t num_preemptions() const { return num_preemptions_; }
  // Whether a prompt waits for its pages to be copied: the next plan may be empty for its sake.
  bool is_loading() const;

  // Dies unless every page is free, cached, or held by exactly the sequences and jobs listed here,
  // and phases, slots and lanes agree.
  void check_integrity() const;

 private:
  enum class Start : uint8_t { kStarted, kLaneBusy, kNoPages, kNotReady };

  void look_up(Sequence& sequence);
  void note_arrivals(Clock::time_point time);
  // What a prompt has left to compute, waiting or under way.
  int64_t next_to_compute(const Sequence& sequence) const;
  double remaining_ms(const Sequence& sequence) const;
  PrefillClaim claim(const Sequence& sequence, Clock::time_point time) const;
  std::vector<Sequence*> in_order(Clock::time_point time) const;

  void plan_prefill(StepPlan& plan);
  void choose_job(StepPlan& plan);
  bool is_wedged(const StepPlan& plan) const;
  Start start_job(Sequence& sequence, StepPlan& plan, bool may_admit);
  bool join_job(Sequence& sequence, LaneStart& start);
  int64_t rows_of_job(const Sequence& sequence, int64_t begin, Lane lane) const;
  bool is_short(const Sequence& sequence) const;
  Lane lane_for(const Sequence& sequence) const;
  bool admit(Sequence& sequence);
  bool take_pages_for(Sequence& sequence, const PrefillChunk& chunk);
  static int64_t pages_needed(const Sequence& sequence);
  int64_t num_promised_pages() const;
  int64_t num_growth_pages(double ms) const;

  void plan_decode(StepPlan& plan);
  bool take_page_for(Sequence& sequence, std::vector<Sequence*>& generating);
  bool yield_prefill();
  void preempt(Sequence& sequence);
  void finish_job(Lane lane, Clock::time_point time);
  void observe_cost(const std::vector<PrefillChunk>& chunks, double ms);
  void cache_pages(Sequence& sequence);
  void hold_pages(Sequence& sequence);
  FinishedSequence release(Sequence& sequence, FinishReason reason, absl::Status status);

  SchedulerLimits limits_;
  KvCachePool& pool_;
  SequenceMap sequences_;
  std::vector<SequenceId> waiting_;  // in order of arrival
  std::vector<SequenceId> running_;  // in order of admission
  std::vector<int32_t> free_slots_;
  LaneJobs lanes_;
  PrefillCost cost_;
  Clock::time_point planned_;  // the last plan
  double step_ms_ = 0;         // between two plans with decode rows, smoothed; 0 = none yet
  bool decoded_ = false;       // the last plan had decode rows
  int64_t next_step_ = 1;
  int64_t num_preemptions_ = 0;
};

}  // namespace pbserve::engine
