#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/sample.h"

namespace pbserve::engine {

using kernels::ceil_div;
using kernels::kPageSize;

namespace {

absl::Status no_token_error(const Sequence& sequence) {
  return absl::InternalError(
      absl::StrCat("the model gave no number for any token at position ", sequence.num_known(),
                   ": its weights or activations left the range of the data type"));
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, KvCachePool& pool)
    : limits_(limits), pool_(pool) {
  for (int32_t slot = limits.num_slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::add(SequenceSpec spec) {
  const SequenceId id = spec.id;
  const auto [place, fresh] = sequences_.try_emplace(id);
  check(fresh, "sequence id used twice");
  place->second = std::make_unique<Sequence>(std::move(spec));
  waiting_.push_back(id);
}

int64_t Scheduler::num_running() const { return static_cast<int64_t>(running_.size()); }

const std::vector<PrefillChunk>& Scheduler::job(Lane lane) const {
  return lanes_[static_cast<size_t>(lane)].chunks;
}

QueueState Scheduler::queue() const {
  QueueState queue{.num_requests = num_waiting(), .num_tokens = {}};
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->phase == Phase::kDecode) continue;
    const Lane lane = lane_of(sequence->num_tokens(), sequence->spec().pbs);
    queue.num_tokens[static_cast<size_t>(lane)] +=
        sequence->num_tokens() - sequence->num_computed();
  }
  return queue;
}

Lane Scheduler::lane_of(int64_t num_tokens, bool pbs) const {
  return pbs || num_tokens > limits_.chunks.short_rows ? Lane::kLong : Lane::kShort;
}

int64_t Scheduler::num_cached_tokens(SequenceId id) const {
  Sequence& sequence = *sequences_.at(id);
  if (!limits_.prefix_caching) return 0;
  pool_.refresh(sequence.spec().cache_root, sequence.tokens(), sequence.match);
  return usable_prefix(sequence, int64_t{kPageSize} * sequence.match.num_pages(), limits_.chunks);
}

std::optional<FinishedSequence> Scheduler::remove(SequenceId id, FinishReason reason,
                                                  absl::Status status) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return std::nullopt;
  return release(*found->second, reason, std::move(status));
}

std::vector<FinishedSequence> Scheduler::take_expired(Clock::time_point time) {
  std::vector<SequenceId> expired;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->spec().deadline && *sequence->spec().deadline <= time) expired.push_back(id);
  }
  std::vector<FinishedSequence> out;
  for (SequenceId id : expired) {
    out.push_back(release(*sequences_.at(id), FinishReason::kError,
                          absl::DeadlineExceededError("the request's deadline has passed")));
  }
  return out;
}

std::optional<FinishedSequence> Scheduler::take_stuck() {
  if (!running_.empty() || waiting_.empty()) return std::nullopt;
  Sequence& stuck = *sequences_.at(waiting_.front());
  const int64_t needed = ceil_div<int64_t>(stuck.num_tokens() + 1, kPageSize);
  return release(stuck, FinishReason::kError,
                 absl::ResourceExhaustedError(
                     absl::StrCat("the request needs ", needed, " cache pages of ", kPageSize,
                                  " tokens, and ", pool_.num_available(), " can be had")));
}

StepPlan Scheduler::plan_step(Clock::time_point time) {
  StepPlan plan;
  plan.step = next_step_++;
  plan.slice_ms = limits_.slice_ms;
  plan_decode(plan);
  plan_lanes(plan, time);
  return plan;
}

// ---- prefill ----

void Scheduler::plan_lanes(StepPlan& plan, Clock::time_point time) {
  for (Lane lane : kLanes) {
    if (std::exchange(state(lane).abort, false)) plan.aborts.push_back(lane);
  }
  continue_long_prompt(plan);
  admit_waiting(plan, time);
  for (LaneStart& start : plan.starts) state(start.lane).chunks = start.chunks;

  const Lane other = last_lane_ == Lane::kLong ? Lane::kShort : Lane::kLong;
  if (!state(other).idle()) {
    plan.slice = other;  // both busy: they take turns
  } else if (!state(last_lane_).idle()) {
    plan.slice = last_lane_;
  }
  if (plan.slice) last_lane_ = *plan.slice;
}

// A long prompt keeps its lane from chunk to chunk.
void Scheduler::continue_long_prompt(StepPlan& plan) {
  if (!state(Lane::kLong).idle()) return;
  const auto& short_job = state(Lane::kShort).chunks;
  for (SequenceId id : running_) {
    const Sequence& sequence = *sequences_.at(id);
    const bool in_short_lane =
        std::ranges::find(short_job, id, &PrefillChunk::id) != short_job.end();
    if (sequence.phase != Phase::kPrefill || in_short_lane) continue;
    plan.starts.push_back({Lane::kLong, {next_chunk(sequence, limits_.chunks)}});
    return;
  }
}

void Scheduler::admit_waiting(StepPlan& plan, Clock::time_point time) {
  // Looking a prompt up in the cache costs time, so only this many waiting ones are looked at.
  constexpr size_t kLookAhead = 32;
  size_t looked_at = 0;
  for (size_t i = 0; i < waiting_.size() && looked_at < kLookAhead && !free_slots_.empty();) {
    Sequence& sequence = *sequences_.at(waiting_[i]);
    ++looked_at;
    const Admission admission = sequence.has_token_in_flight()
                                    ? Admission::kLaneBusy
                                    : try_admit(sequence, plan.starts, time);
    if (admission == Admission::kNoPages) return;
    if (admission == Admission::kStarted) {
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
}

bool Scheduler::fits_short_lane(const PrefillChunk& chunk) const {
  return !chunk.pbs && chunk.draws_token && chunk.end - chunk.begin <= limits_.chunks.short_rows;
}

Scheduler::Admission Scheduler::try_admit(Sequence& sequence, std::vector<LaneStart>& starts,
                                          Clock::time_point time) {
  const auto started = [&](Lane lane) { return std::ranges::find(starts, lane, &LaneStart::lane); };
  const auto free_lane = [&](Lane lane) {
    return state(lane).idle() && started(lane) == starts.end();
  };
  const auto open = started(Lane::kShort);  // a short job that still takes prompts
  const bool short_lane_open = open != starts.end() || free_lane(Lane::kShort);
  if (!short_lane_open && !free_lane(Lane::kLong)) return Admission::kLaneBusy;

  const int64_t cached = num_cached_tokens(sequence.id());
  const auto num_cached_pages = static_cast<int32_t>(cached / kPageSize);
  sequence.start_prefill(cached, free_slots_.back());
  const PrefillChunk chunk = next_chunk(sequence, limits_.chunks);
  const auto roll_back = [&](Admission why) {
    sequence.stop_running();
    return why;
  };
  Lane lane = Lane::kLong;
  if (fits_short_lane(chunk) && short_lane_open) {
    int64_t rows = chunk.end - chunk.begin;
    if (open != starts.end()) {
      for (const PrefillChunk& other : open->chunks) rows += other.end - other.begin;
    }
    if (rows > limits_.chunks.short_rows) return roll_back(Admission::kLaneBusy);
    lane = Lane::kShort;
  } else if (fits_short_lane(chunk) || !free_lane(Lane::kLong)) {
    return roll_back(Admission::kLaneBusy);
  }

  // One page to spare for every generating sequence keeps admissions from causing preemptions.
  const int64_t needed = ceil_div<int64_t>(sequence.num_tokens() + 1, kPageSize) - num_cached_pages;
  const int64_t spare = num_running() + pool_.num_needed(sequence.match, num_cached_pages);
  if (pool_.num_available() < needed + spare ||
      !pool_.acquire(sequence.match, num_cached_pages, sequence.blocks) ||
      !pool_.allocate(sequence.blocks, static_cast<int32_t>(needed))) {
    return roll_back(Admission::kNoPages);
  }
  pool_.hold_back_steps(sequence.blocks);
  free_slots_.pop_back();
  running_.push_back(sequence.id());
  if (sequence.first_cached < 0) {
    sequence.first_cached = cached;
    sequence.prefill_begin = time;
  }
  if (lane == Lane::kShort && open != starts.end()) {
    open->chunks.push_back(chunk);
  } else {
    starts.push_back({lane, {chunk}});
  }
  return Admission::kStarted;
}

void Scheduler::finish_job(Lane lane, Clock::time_point time) {
  LaneState& job = state(lane);
  for (const PrefillChunk& chunk : job.chunks) {
    const auto found = sequences_.find(chunk.id);
    if (found == sequences_.end()) continue;
    Sequence& sequence = *found->second;
    sequence.advance_computed(chunk.end);
    cache_pages(sequence);
    if (!chunk.draws_token) continue;
    sequence.expect_token();
    sequence.phase = Phase::kDecode;
    if (sequence.prefill_end == Clock::time_point{}) sequence.prefill_end = time;
  }
  job = LaneState{};
}

// ---- decode ----

void Scheduler::plan_decode(StepPlan& plan) {
  std::vector<Sequence*> generating;
  for (SequenceId id : running_) {
    Sequence& sequence = *sequences_.at(id);
    if (sequence.phase == Phase::kDecode) generating.push_back(&sequence);
  }
  for (size_t i = 0; i < generating.size(); ++i) {
    Sequence& sequence = *generating[i];
    if (sequence.at_length_limit()) continue;
    if (!take_page_for(sequence, generating)) continue;
    plan.decode.push_back({.id = sequence.id(), .position = sequence.num_computed()});
  }
}

// False if the sequence itself had to give way: every other one is older.
bool Scheduler::take_page_for(Sequence& sequence, std::vector<Sequence*>& generating) {
  while (sequence.blocks.num_pages() * kPageSize <= sequence.num_computed()) {
    if (pool_.allocate(sequence.blocks, 1)) return true;
    Sequence& youngest = *generating.back();
    const bool itself = &youngest == &sequence;
    preempt(youngest);
    generating.pop_back();
    if (itself) return false;
  }
  return true;
}

void Scheduler::preempt(Sequence& sequence) {
  cache_pages(sequence);
  free_slots_.push_back(sequence.slot);
  std::erase(running_, sequence.id());
  sequence.stop_running();
  waiting_.push_front(sequence.id());
  ++num_preemptions_;
}

// ---- results ----

void Scheduler::launched(const StepPlan& plan, const LaunchReport& report, Clock::time_point time) {
  for (const DecodeRow& row : plan.decode) {
    Sequence& sequence = *sequences_.at(row.id);
    sequence.advance_computed(row.position + 1);
    sequence.expect_token();
  }
  if (report.finished_lane) finish_job(*report.finished_lane, time);
}

std::vector<FinishedSequence> Scheduler::commit(const StepOutput& output,
                                                std::vector<SampledToken>& tokens) {
  for (const ChunkReport& report : output.reports) {
    const auto found = sequences_.find(report.id);
    if (found == sequences_.end()) continue;
    found->second->density.add(report.blocks);
    found->second->coverage.add(report.coverage);
  }
  std::vector<FinishedSequence> finished;
  for (const SampledToken& sampled : output.tokens) {
    const auto found = sequences_.find(sampled.id);
    if (found == sequences_.end()) continue;  // it ended while this step was in flight
    Sequence& sequence = *found->second;
    if (sampled.token == kernels::kNoToken) {
      finished.push_back(release(sequence, FinishReason::kError, no_token_error(sequence)));
      continue;
    }
    sequence.append_token(sampled.token);
    tokens.push_back(sampled);
    if (sequence.is_stop(sampled.token) && sequence.num_known() > sequence.spec().num_tokens_min) {
      finished.push_back(release(sequence, FinishReason::kStop, absl::OkStatus()));
    } else if (sequence.num_known() >= sequence.spec().num_tokens_max) {
      finished.push_back(release(sequence, FinishReason::kLength, absl::OkStatus()));
    }
  }
  return finished;
}

void Scheduler::check_integrity() const {
  std::vector<const BlockTable*> tables;
  for (const auto& [id, sequence] : sequences_) {
    tables.push_back(&sequence->blocks);
    check((sequence->slot < 0) == (sequence->phase == Phase::kWaiting), "slot of a waiting one");
    check(sequence->phase != Phase::kWaiting || sequence->blocks.num_pages() == 0,
          "a waiting sequence holds pages");
  }
  for (const LaneState& lane : lanes_) {
    for (const BlockTable& orphan : lane.orphans) tables.push_back(&orphan);
  }
  pool_.check_integrity(tables);
  check_eq(waiting_.size() + running_.size(), sequences_.size(), "waiting + running = all");
  check_eq(free_slots_.size() + running_.size(), static_cast<size_t>(limits_.num_slots),
           "free + taken slots = all");
}

void Scheduler::cache_pages(Sequence& sequence) {
  if (!limits_.prefix_caching) return;
  const int64_t reusable = num_reusable(sequence, limits_.chunks);
  pool_.insert(sequence.spec().cache_root, sequence.tokens(), sequence.blocks,
               static_cast<int32_t>(reusable / kPageSize));
}

FinishedSequence Scheduler::release(Sequence& sequence, FinishReason reason, absl::Status status) {
  if (sequence.phase == Phase::kDecode) cache_pages(sequence);
  for (Lane lane : kLanes) {
    LaneState& job = state(lane);
    if (std::ranges::find(job.chunks, sequence.id(), &PrefillChunk::id) == job.chunks.end())
      continue;
    const auto alive = [&](const PrefillChunk& chunk) {
      return chunk.id != sequence.id() && sequences_.contains(chunk.id);
    };
    if (std::ranges::any_of(job.chunks, alive)) {
      job.orphans.push_back(std::move(sequence.blocks));
    } else {
      job = LaneState{};
      job.abort = true;
    }
  }
  sequence.blocks.clear();
  if (sequence.slot >= 0) free_slots_.push_back(sequence.slot);
  std::erase(running_, sequence.id());
  std::erase(waiting_, sequence.id());
  auto node = sequences_.extract(sequence.id());
  return {std::move(node.mapped()), reason, std::move(status)};
}

}  // namespace pbserve::engine
