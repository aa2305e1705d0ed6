// The prefill half of the Scheduler: which prompt's job is next, in which lane, with which pages.
#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "engine/scheduler.h"
#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/rope.h"

namespace pbserve::engine {

using kernels::align_down;
using kernels::ceil_div;
using kernels::kPageSize;

namespace {

// A job in the express lane makes way for the next one to overtake within about this time.
constexpr double kExpressJobMs = 200;

}  // namespace

// ---- order ----

// Looks up what waits, and says when what has come is due.
void Scheduler::note_arrivals(Clock::time_point time) {
  for (const SequenceId id : waiting_) {
    Sequence& sequence = *sequences_.at(id);
    look_up(sequence);
  }
  if (!cost_.has_rate()) return;
  double backlog_ms = 0;
  const auto note = [&](SequenceId id) {
    Sequence& sequence = *sequences_.at(id);
    if (sequence.phase == Phase::kDecode) return;
    if (!sequence.due) {
      constexpr double kForeverMs = 1e10;  // four months; what a clock counts ends at 292 years
      const double patience = patience_ms(backlog_ms, sequence.spec().priority);
      const double wait_ms = std::min(patience, kForeverMs);
      sequence.due = time + std::chrono::duration_cast<Clock::duration>(
                                std::chrono::duration<double, std::milli>(wait_ms));
    }
    backlog_ms += remaining_ms(sequence);
  };
  std::ranges::for_each(running_, note);
  std::ranges::for_each(waiting_, note);
}

void Scheduler::look_up(Sequence& sequence) {
  if (!limits_.prefix_caching) return;
  pool_.refresh(sequence.spec().cache_root, sequence.tokens(), sequence.match);
}

int64_t Scheduler::next_to_compute(const Sequence& sequence) const {
  return sequence.phase == Phase::kWaiting
             ? usable_prefix(sequence, int64_t{kPageSize} * sequence.match.num_pages(),
                             limits_.chunks)
             : sequence.num_computed();
}

double Scheduler::remaining_ms(const Sequence& sequence) const {
  return cost_.ms(next_to_compute(sequence), sequence.num_tokens(), sequence.spec().pbs);
}

PrefillClaim Scheduler::claim(const Sequence& sequence, Clock::time_point time) const {
  const double left_ms = remaining_ms(sequence);
  const double due_ms =
      sequence.due ? ms_between(time, *sequence.due) : std::numeric_limits<double>::infinity();
  return {.remaining_ms = left_ms,
          .due_ms = due_ms + kLateness * (sequence.spent_ms + left_ms),
          .priority = sequence.spec().priority};
}

// Every sequence that has something to prefill, the first to go first.
std::vector<Sequence*> Scheduler::in_order(Clock::time_point time) const {
  std::vector<Sequence*> sequences;
  std::vector<PrefillClaim> claims;
  const auto add = [&](SequenceId id) {
    Sequence* sequence = sequences_.at(id).get();
    if (sequence->phase == Phase::kDecode) return;
    sequences.push_back(sequence);
    claims.push_back(claim(*sequence, time));
  };
  std::ranges::for_each(running_, add);
  std::ranges::for_each(waiting_, add);
  std::vector<Sequence*> order;
  for (const size_t i : prefill_order(claims)) order.push_back(sequences[i]);
  return order;
}

Scheduler::Place Scheduler::place_of(SequenceId id, Clock::time_point time) {
  note_arrivals(time);
  Place place;
  double before_ms = 0;
  for (const Sequence* sequence : in_order(time)) {
    before_ms += remaining_ms(*sequence);
    place.num_cached = next_to_compute(*sequence);
    if (sequence->id() == id) break;
    if (sequence->phase == Phase::kWaiting) ++place.position;
  }
  if (cost_.has_rate()) place.first_token_ms = before_ms;
  return place;
}

QueueState Scheduler::queue(Clock::time_point time) const {
  QueueState queue{
      .num_requests = num_waiting(), .num_tokens = 0, .cost = cost_, .time = time, .claims = {}};
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->phase == Phase::kDecode) continue;
    queue.num_tokens += sequence->num_tokens() - next_to_compute(*sequence);
    queue.claims.push_back(claim(*sequence, time));
  }
  return queue;
}

// ---- jobs ----

// The first in order that can run does. Jobs that have begun and prompts under way need nobody's
// leave; a waiting prompt that finds no pages is passed by until it is late.
void Scheduler::plan_prefill(StepPlan& plan) {
  plan.aborts = lanes_.take_aborts();
  do {
    choose_job(plan);
  } while (is_wedged(plan) && yield_prefill());
}

void Scheduler::choose_job(StepPlan& plan) {
  note_arrivals(planned_);
  bool may_admit = true;
  for (Sequence* sequence : in_order(planned_)) {
    const std::optional<Lane> lane = lanes_.lane_of(sequence->id());
    if (plan.start && may_admit && !lane) join_job(*sequence, *plan.start);
    if (plan.slice) continue;
    if (lane) {
      plan.slice = lane;
    } else if (start_job(*sequence, plan, may_admit) == Start::kNoPages) {
      if (claim(*sequence, planned_).due_ms < 0) may_admit = false;
    }
  }
}

// Whether the prompts under way wait for pages that nobody will give back: what they were promised
// has been held, or pinned below a prompt's own copies.
bool Scheduler::is_wedged(const StepPlan& plan) const {
  const auto is_in_prefill = [&](SequenceId id) {
    return sequences_.at(id)->phase == Phase::kPrefill;
  };
  return !plan.slice && !running_.empty() && std::ranges::all_of(running_, is_in_prefill) &&
         !is_loading();
}

bool Scheduler::is_short(const Sequence& sequence) const {
  const int64_t rows = sequence.num_tokens() - next_to_compute(sequence);
  return !sequence.spec().pbs && rows <= limits_.chunks.express_rows;
}

// Short prompts leave the main lane to those that have many jobs.
Lane Scheduler::lane_for(const Sequence& sequence) const {
  const int64_t begin = next_to_compute(sequence);
  const bool fits_express =
      next_chunk(sequence, begin, limits_.chunks, rows_of_job(sequence, begin, Lane::kExpress))
          .has_value();
  if (!fits_express) return Lane::kMain;
  if (is_short(sequence) && lanes_.is_idle(Lane::kExpress)) return Lane::kExpress;
  return lanes_.is_idle(Lane::kMain) ? Lane::kMain : Lane::kExpress;
}

int64_t Scheduler::rows_of_job(const Sequence& sequence, int64_t begin, Lane lane) const {
  const int64_t rows = limits_.chunks.rows(lane);
  if (lane == Lane::kMain || !cost_.has_rate()) return rows;
  const bool pbs = sequence.spec().pbs;
  const int64_t smallest = pbs ? std::max<int64_t>(limits_.chunks.span, kPageSize) : kPageSize;
  const int64_t within =
      align_down<int64_t>(cost_.rows_within(kExpressJobMs, begin, pbs), kPageSize);
  return std::min(rows, std::max(smallest, within));
}

Scheduler::Start Scheduler::start_job(Sequence& sequence, StepPlan& plan, bool may_admit) {
  if (sequence.has_token_in_flight()) return Start::kNotReady;
  const Lane lane = lane_for(sequence);
  if (!lanes_.is_idle(lane)) {
    plan.slice = lane;  // its job ends first
    return Start::kLaneBusy;
  }
  if (sequence.phase == Phase::kWaiting && (!may_admit || !admit(sequence))) return Start::kNoPages;
  const std::optional<PrefillChunk> chunk =
      next_chunk(sequence, sequence.num_computed(), limits_.chunks,
                 rows_of_job(sequence, sequence.num_computed(), lane));
  if (!chunk || !take_pages_for(sequence, *chunk)) return Start::kNoPages;
  if (!pool_.is_loaded(sequence.blocks)) return Start::kNotReady;
  lanes_.start(lane, {*chunk});
  plan.start = LaneStart{lane, {*chunk}};
  plan.slice = lane;
  return Start::kStarted;
}

// A short prompt joins a job of short ones that starts with this plan.
bool Scheduler::join_job(Sequence& sequence, LaneStart& start) {
  const PrefillChunk& first = start.chunks.front();
  if (start.lane != Lane::kExpress || first.pbs || !first.draws_token) return false;
  if (!is_short(sequence) || sequence.has_token_in_flight()) return false;
  int64_t room = limits_.chunks.express_rows;
  for (const PrefillChunk& other : start.chunks) room -= other.end - other.begin;
  if (sequence.num_tokens() - next_to_compute(sequence) > room) return false;
  if (sequence.phase == Phase::kWaiting && !admit(sequence)) return false;
  // What it had in the cache may have gone to those before it.
  if (sequence.num_tokens() - sequence.num_computed() > room) return false;
  const auto chunk = next_chunk(sequence, sequence.num_computed(), limits_.chunks, room);
  if (!take_pages_for(sequence, *chunk) || !pool_.is_loaded(sequence.blocks)) return false;
  start.chunks.push_back(*chunk);
  lanes_.add(start.lane, *chunk);
  return true;
}

void Scheduler::sliced(const StepPlan& plan, const SliceReport& report, Clock::time_point time) {
  check(plan.slice.has_value(), "a slice nobody planned");
  const double spent_ms = ms_between(planned_, time);
  lanes_.spend(*plan.slice, spent_ms);
  const std::vector<PrefillChunk>& chunks = lanes_.chunks(*plan.slice);
  for (const PrefillChunk& chunk : chunks) {
    const auto found = sequences_.find(chunk.id);
    if (found == sequences_.end()) continue;
    found->second->spent_ms += spent_ms / static_cast<double>(chunks.size());
  }
  if (report.is_finished) finish_job(*plan.slice, time);
}

void Scheduler::finish_job(Lane lane, Clock::time_point time) {
  const double spent_ms = lanes_.spent_ms(lane);
  const std::vector<PrefillChunk> chunks = lanes_.finish(lane);
  observe_cost(chunks, spent_ms);
  for (const PrefillChunk& chunk : chunks) {
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
}

// Prompts that shared a job share its time by what each was expected to take.
void Scheduler::observe_cost(const std::vector<PrefillChunk>& chunks, double ms) {
  double expected_ms = 0;
  const PrefillCost before = cost_;
  for (const PrefillChunk& c : chunks) expected_ms += before.ms(c.begin, c.end, c.pbs);
  for (const PrefillChunk& c : chunks) {
    cost_.observe(c, ms * before.ms(c.begin, c.end, c.pbs) / expected_ms);
  }
}

// ---- pages ----

int64_t Scheduler::pages_needed(const Sequence& sequence) {
  return ceil_div<int64_t>(sequence.num_tokens() + 1, kPageSize);
}

bool Scheduler::admit(Sequence& sequence) {
  if (free_slots_.empty()) return false;
  look_up(sequence);  // again: those before it may have evicted what it had
  const int64_t cached = next_to_compute(sequence);
  const auto num_cached = static_cast<int32_t>(cached / kPageSize);
  pool_.break_holds_for(sequence.match, num_cached, pages_needed(sequence));
  double longest_ms = remaining_ms(sequence);
  for (const SequenceId id : running_) {
    const Sequence& other = *sequences_.at(id);
    if (other.phase == Phase::kPrefill) longest_ms = std::max(longest_ms, remaining_ms(other));
  }
  const int64_t spare = num_promised_pages() + num_growth_pages(longest_ms) +
                        pool_.num_needed(sequence.match, num_cached);
  if (pool_.num_available() < pages_needed(sequence) - num_cached + spare) return false;
  if (!pool_.acquire(sequence.match, num_cached, sequence.blocks)) return false;
  sequence.start_prefill(cached, free_slots_.back());
  free_slots_.pop_back();
  std::erase(waiting_, sequence.id());
  running_.push_back(sequence.id());
  if (sequence.first_cached < 0) {
    sequence.first_cached = cached;
    sequence.prefill_begin = planned_;
  }
  return true;
}

// With the page of the token that the job draws. They may still be on their way to the host.
bool Scheduler::take_pages_for(Sequence& sequence, const PrefillChunk& chunk) {
  const int64_t tokens = chunk.end + (chunk.draws_token ? 1 : 0);
  const int64_t missing = ceil_div<int64_t>(tokens, kPageSize) - sequence.blocks.num_pages();
  return missing <= 0 ||
         pool_.allocate(sequence.blocks, static_cast<int32_t>(missing), Handover::kLater);
}

bool Scheduler::is_loading() const {
  return std::ranges::any_of(running_, [&](SequenceId id) {
    const Sequence& sequence = *sequences_.at(id);
    return sequence.phase == Phase::kPrefill && !pool_.is_loaded(sequence.blocks);
  });
}

// What the prompts under way have still to take.
int64_t Scheduler::num_promised_pages() const {
  int64_t pages = 0;
  for (const SequenceId id : running_) {
    const Sequence& sequence = *sequences_.at(id);
    if (sequence.phase != Phase::kPrefill) continue;
    pages += std::max<int64_t>(0, pages_needed(sequence) - sequence.blocks.num_pages());
  }
  return pages;
}

// What the generating sequences are expected to take in so much time, at least a page each.
int64_t Scheduler::num_growth_pages(double ms) const {
  const int64_t tokens = step_ms_ > 0 && cost_.has_rate() ? static_cast<int64_t>(ms / step_ms_) : 0;
  int64_t pages = 0;
  for (const SequenceId id : running_) {
    const Sequence& sequence = *sequences_.at(id);
    if (sequence.phase != Phase::kDecode) continue;
    const int64_t left = sequence.spec().num_tokens_max - sequence.num_tokens();
    pages += 1 + std::min(tokens, left) / kPageSize;
  }
  return pages;
}

}  // namespace pbserve::engine
