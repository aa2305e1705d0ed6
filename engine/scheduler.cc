#include "engine/scheduler.h"

#include <algorithm>
#include <chrono>
#include <ranges>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/sample.h"

namespace pbserve::engine {

using kernels::kPageSize;

namespace {

absl::Status no_token_error(const Sequence& sequence) {
  return absl::InternalError(
      absl::StrCat("the model gave no number for any token at position ", sequence.num_known(),
                   ": its weights or activations left the range of the data type"));
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, KvCachePool& pool)
    : limits_(limits), pool_(pool), cost_(limits.cost) {
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
  Sequence& stuck = *in_order(planned_).front();
  const int64_t needed = pages_needed(stuck);
  return release(stuck, FinishReason::kError,
                 absl::ResourceExhaustedError(
                     absl::StrCat("the request needs ", needed, " cache pages of ", kPageSize,
                                  " tokens, and ", pool_.num_available(), " can be had")));
}

StepPlan Scheduler::plan_step(Clock::time_point time) {
  StepPlan plan;
  plan.step = next_step_++;
  plan.slice_ms = limits_.slice_ms;
  const double since_last_ms = ms_between(planned_, time);
  planned_ = time;
  pool_.expire_holds(time);
  plan_decode(plan);
  if (decoded_ && !plan.decode.empty()) {
    constexpr double kNewest = 0.1;
    step_ms_ = step_ms_ == 0 ? since_last_ms : kNewest * since_last_ms + (1 - kNewest) * step_ms_;
  }
  decoded_ = !plan.decode.empty();
  plan_prefill(plan);
  return plan;
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
    if (yield_prefill()) continue;
    Sequence& youngest = *generating.back();
    const bool itself = &youngest == &sequence;
    preempt(youngest);
    generating.pop_back();
    if (itself) return false;
  }
  return true;
}

// The last of the prompts under way goes back to waiting. Its pages stay in the prefix cache, from
// where the last ones are evicted first: what was computed before them is not computed again. A
// prompt whose job others share would leave its pages with the job.
bool Scheduler::yield_prefill() {
  for (Sequence* sequence : std::views::reverse(in_order(planned_))) {
    if (sequence->phase != Phase::kPrefill || sequence->blocks.num_pages() == 0) continue;
    if (!lanes_.is_alone(sequence->id(), sequences_)) continue;
    lanes_.remove(*sequence, sequences_);
    preempt(*sequence);
    return true;
  }
  return false;
}

void Scheduler::preempt(Sequence& sequence) {
  cache_pages(sequence);
  free_slots_.push_back(sequence.slot);
  std::erase(running_, sequence.id());
  sequence.stop_running();
  sequence.spent_ms = 0;  // what is lost is computed again
  waiting_.push_back(sequence.id());
  ++num_preemptions_;
}

// ---- results ----

void Scheduler::launched(const StepPlan& plan) {
  for (const DecodeRow& row : plan.decode) {
    Sequence& sequence = *sequences_.at(row.id);
    sequence.advance_computed(row.position + 1);
    sequence.expect_token();
  }
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
  for (const BlockTable* orphan : lanes_.orphans()) tables.push_back(orphan);
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

// Those of a sequence that has finished. What prompts under way were promised stays available.
void Scheduler::hold_pages(Sequence& sequence) {
  const float hold_s = sequence.spec().cache_hold_s;
  if (hold_s <= 0 || !limits_.prefix_caching) return;
  const Clock::time_point until =
      planned_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<float>(hold_s));
  const int64_t num_spare = pool_.num_available() - num_promised_pages();
  sequence.num_held = int64_t{kPageSize} * pool_.hold(sequence.blocks, until, num_spare);
}

FinishedSequence Scheduler::release(Sequence& sequence, FinishReason reason, absl::Status status) {
  if (sequence.phase == Phase::kDecode) {
    cache_pages(sequence);
    if (reason == FinishReason::kStop || reason == FinishReason::kLength) hold_pages(sequence);
  }
  lanes_.remove(sequence, sequences_);
  sequence.blocks.clear();
  if (sequence.slot >= 0) free_slots_.push_back(sequence.slot);
  std::erase(running_, sequence.id());
  std::erase(waiting_, sequence.id());
  auto node = sequences_.extract(sequence.id());
  return {std::move(node.mapped()), reason, std::move(status)};
}

}  // namespace pbserve::engine
