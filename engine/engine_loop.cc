#include "engine/engine_loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace pbserve::engine {

namespace {

SchedulerLimits scheduler_limits(const SchedulerOptions& options, const RunnerLimits& limits) {
  return {.num_slots = limits.num_slots,
          .chunks = limits.chunks,
          .cost = limits.cost,
          .slice_ms = options.prefill_slice_ms,
          .prefix_caching = options.enable_prefix_caching};
}

bool overlaps(Overlap overlap, kernels::Device device) {
  if (overlap == Overlap::kAuto) return device.kind == kernels::DeviceKind::kCuda;
  return overlap == Overlap::kOn;
}

std::optional<SparseReport::Coverage> coverage_of(const CoverageSums& sums) {
  SparseReport::Coverage coverage;
  double total = 0;
  int64_t num_samples = 0;
  for (size_t layer = 0; layer < sums.num_rows.size(); ++layer) {
    const int64_t num_rows = sums.num_rows[layer];
    if (num_rows == 0) continue;
    const auto num_heads = static_cast<size_t>(sums.num_heads);
    double of_layer = 0;
    for (size_t head = 0; head < num_heads; ++head) {
      const double of_head = sums.sums[layer * num_heads + head] / static_cast<double>(num_rows);
      coverage.lowest_head = std::min(coverage.lowest_head, of_head);
      of_layer += of_head / static_cast<double>(num_heads);
    }
    coverage.lowest_layer = std::min(coverage.lowest_layer, of_layer);
    total += of_layer * static_cast<double>(num_rows);
    num_samples += num_rows;
  }
  if (num_samples == 0) return std::nullopt;
  coverage.mean = total / static_cast<double>(num_samples);
  return coverage;
}

SparseReport sparse_report(const Sequence& sequence, bool is_forced) {
  SparseReport report;
  report.mode_used = sequence.spec().pbs ? SparseMode::kPbs : SparseMode::kDense;
  report.is_forced = sequence.spec().pbs && is_forced;
  int64_t attended = 0;
  int64_t causal = 0;
  const auto share = [](int64_t part, int64_t whole) {
    return whole == 0 ? 1.0 : static_cast<double>(part) / static_cast<double>(whole);
  };
  for (size_t layer = 0; layer < sequence.density.causal.size(); ++layer) {
    attended += sequence.density.attended[layer];
    causal += sequence.density.causal[layer];
    report.layer_densities.push_back(
        share(sequence.density.attended[layer], sequence.density.causal[layer]));
  }
  report.density = share(attended, causal);
  report.coverage = coverage_of(sequence.coverage);
  return report;
}

Completion completion_of(const FinishedSequence& finished, bool is_forced) {
  const Sequence& sequence = *finished.sequence;
  Completion completion;
  completion.status = finished.status;
  completion.reason = finished.reason;
  completion.usage = {.prompt_tokens = sequence.num_prompt(),
                      .cached_tokens = std::max<int64_t>(sequence.first_cached, 0),
                      .completion_tokens = sequence.num_generated()};
  if (sequence.spec().cache_hold_s > 0) completion.usage.cache_held_tokens = sequence.num_held;
  if (sequence.first_cached >= 0) {
    completion.timings.queue_ms = ms_between(sequence.spec().submitted, sequence.prefill_begin);
  }
  if (sequence.prefill_end != Clock::time_point{}) {
    completion.timings.prefill_ms = ms_between(sequence.prefill_begin, sequence.prefill_end);
  }
  completion.sparse = sparse_report(sequence, is_forced);
  return completion;
}

void publish_tiers(const KvCachePool& pool, Metrics& metrics) {
  const TierCounters counters = pool.counters();
  metrics.set_tiers({.num_pages_used = pool.num_used(),
                     .num_pages_cached = pool.num_cached(),
                     .num_pages_free = pool.num_free(),
                     .page_bytes = pool.page_bytes(),
                     .num_pages_hit = counters.num_device_hits,
                     .num_pages_copied = counters.num_to_device},
                    {.num_pages_cached = pool.num_host_cached(),
                     .num_pages_free = pool.num_host_pages() - pool.num_host_cached(),
                     .page_bytes = pool.page_bytes(),
                     .num_pages_hit = counters.num_host_hits,
                     .num_pages_copied = counters.num_to_host},
                    counters.num_dropped);
  const HoldState holds = pool.hold_state();
  metrics.set_cache_use({.num_holds = holds.num_holds,
                         .num_pages_held = holds.num_pages,
                         .num_holds_broken = holds.num_broken,
                         .num_holds_cut = holds.num_cut,
                         .num_salts = pool.salts().num_salts(),
                         .num_pages_of_largest_salt = pool.salts().num_largest()});
}

// Whoever takes the place of this server is there by its end.
absl::Status draining(Clock::time_point end) {
  const double rest_s = ms_between(Clock::now(), end) / 1000;
  absl::Status status = absl::UnavailableError("the server is shutting down");
  const auto retry_after_s = static_cast<int64_t>(std::ceil(std::max(rest_s, 1.0)));
  status.SetPayload(kRetryAfterPayload, absl::Cord(absl::StrCat(retry_after_s)));
  return status;
}

}  // namespace

EngineLoop::EngineLoop(const EngineConfig& config, const RunnerLimits& limits, KvCachePool& pool,
                       ModelRunner& runner, const models::Tokenizer& tokenizer, Metrics& metrics)
    : is_forced_(config.pbs.force_density > 0),
      overlaps_(overlaps(config.scheduler.overlap, runner.device())),
      pool_(pool),
      runner_(runner),
      metrics_(metrics),
      scheduler_(scheduler_limits(config.scheduler, limits), pool),
      output_(tokenizer, metrics,
              [this](SequenceId id) {
                inbox_.push(Cancel{id, FinishReason::kStop});
              }),
      bounds_(config.scheduler),
      thread_([this] { run(); }) {}

EngineLoop::~EngineLoop() {
  live_.close();
  inbox_.push(CancelAll{});
  inbox_.close();
  thread_.join();
}

// ---- any thread ----

absl::Status EngineLoop::check_queue() const {
  return live_.is_closed() ? draining(drain_end_) : bounds_.check({});
}

absl::Status EngineLoop::submit(SequenceSpec spec, OutputRules rules,
                                std::unique_ptr<ResponseSink> sink) {
  const QueueBounds::Arrival arrival{.num_tokens = static_cast<int64_t>(spec.prompt.size()),
                                     .pbs = spec.pbs,
                                     .priority = spec.priority};
  NewRequest request{std::move(spec), std::move(rules), std::move(sink), arrival};
  absl::Status status;
  const bool has_entered = live_.enter([&] {
    status = bounds_.take(arrival);
    return status.ok() && inbox_.push(std::move(request));
  });
  return has_entered || !status.ok() ? status : draining(drain_end_);
}

void EngineLoop::cancel(SequenceId id) { inbox_.push(Cancel{id}); }

bool EngineLoop::drain(std::chrono::milliseconds timeout) {
  drain_end_ = Clock::now() + timeout;
  live_.close();
  const bool done = live_.wait_until_none(timeout);
  if (!done) inbox_.push(CancelAll{});
  return done;
}

EngineLoad EngineLoop::load() const {
  return {.num_running = num_running_,
          .num_waiting = bounds_.num_requests(),
          .num_pages_used = num_pages_used_,
          .num_pages_cached = num_pages_cached_};
}

double EngineLoop::stalled_s() const {
  if (num_running_ + bounds_.num_requests() == 0) return 0;
  return ms_between(last_turn_, Clock::now()) / 1000;
}

// ---- engine thread ----

void EngineLoop::run() {
  runner_.bind_thread();
  bool worked = false;
  while (receive(/*may_sleep=*/!worked)) {
    worked = take_turn();
    last_turn_ = Clock::now();
  }
  collect(/*may_stay=*/0);
}

// False once the inbox is closed and every message in it has been handled.
bool EngineLoop::receive(bool may_sleep) {
  // An idle engine wakes up for deadlines of waiting requests only.
  constexpr std::chrono::milliseconds kLongestSleep{200};
  constexpr std::chrono::milliseconds kCopySleep{1};  // until pages have come from the host
  messages_.clear();
  const auto longest = scheduler_.is_loading() ? kCopySleep : kLongestSleep;
  const auto timeout = may_sleep ? longest : std::chrono::milliseconds(0);
  const bool open = inbox_.wait_and_take_all(messages_, timeout);
  for (Message& message : messages_) {
    std::visit([this](auto& what) { handle(std::move(what)); }, message);
  }
  return open;
}

void EngineLoop::handle(NewRequest request) {
  const SequenceId id = request.spec.id;
  const auto num_prompt = static_cast<int64_t>(request.spec.prompt.size());
  output_.start(id, std::move(request.rules), std::move(request.sink), request.spec.submitted);
  scheduler_.add(std::move(request.spec));
  const Scheduler::Place place = scheduler_.place_of(id, Clock::now());
  output_.accepted(id, {.prompt_tokens = num_prompt,
                        .cached_tokens = place.num_cached,
                        .queue_position = place.position,
                        .estimated_ttft_ms = place.first_token_ms});
  publish_load(request.arrival);
}

void EngineLoop::handle(Cancel cancel) {
  const bool is_stop = cancel.reason == FinishReason::kStop;
  auto finished = scheduler_.remove(
      cancel.id, cancel.reason,
      is_stop ? absl::OkStatus() : absl::CancelledError("the request was cancelled"));
  if (finished) finish(*std::move(finished));
}

void EngineLoop::handle(CancelAll) {
  std::vector<SequenceId> ids;
  for (const auto& [id, sequence] : scheduler_.sequences()) ids.push_back(id);
  for (SequenceId id : ids) handle(Cancel{id});
}

// Returns whether there was anything to do.
bool EngineLoop::take_turn() {
  const Clock::time_point time = Clock::now();
  const bool idle = runner_.num_in_flight() == 0;
  std::vector<FinishedSequence> hopeless = scheduler_.take_expired(time);
  const StepPlan plan = scheduler_.plan_step(time);
  if (idle && plan.empty()) {
    if (auto stuck = scheduler_.take_stuck()) hopeless.push_back(*std::move(stuck));
  }
  for (FinishedSequence& gone : hopeless) finish(std::move(gone));
  const bool launches = !plan.empty() || !plan.aborts.empty();
  if (launches) launch(plan);
  // The pacer of a slice has waited for nearly all of it: the tokens before it are not kept longer.
  const int may_stay = overlaps_ && launches && !plan.slice ? 1 : 0;
  collect(may_stay);
  const bool worked = launches || !idle || !hopeless.empty();
  if (worked) publish_load();
  return worked;
}

// Tokens leave as soon as they are drawn, while the slice behind them runs.
void EngineLoop::launch(const StepPlan& plan) {
  runner_.launch(plan, scheduler_.sequences());
  scheduler_.launched(plan);
  if (!plan.slice) return;
  const SliceReport report =
      runner_.run_slice(plan, scheduler_.sequences(), [this] { collect(/*may_stay=*/0); });
  const std::vector<PrefillChunk> job = scheduler_.job(*plan.slice);
  scheduler_.sliced(plan, report, Clock::now());
  publish_load();  // who hears of its progress finds the gauges with it
  report_progress(job, report);
}

void EngineLoop::collect(int may_stay) {
  while (runner_.num_in_flight() > may_stay) commit(runner_.collect());
}

void EngineLoop::report_progress(const std::vector<PrefillChunk>& job, const SliceReport& report) {
  const Clock::time_point time = Clock::now();
  int64_t job_tokens = 0;
  for (const PrefillChunk& chunk : job) {
    job_tokens += chunk.end - chunk.begin;
    const auto found = scheduler_.sequences().find(chunk.id);
    if (found == scheduler_.sequences().end()) continue;
    Sequence& sequence = *found->second;
    const auto done_of_chunk =
        static_cast<int64_t>(report.fraction * static_cast<double>(chunk.end - chunk.begin));
    // One that was preempted computes again what was reported before, and what it has generated.
    const int64_t processed = std::min(chunk.begin + done_of_chunk, sequence.num_prompt());
    if (sequence.num_generated() > 0 || processed <= sequence.num_reported) continue;
    sequence.num_reported = processed;
    PrefillProgress progress{.processed_tokens = processed,
                             .total_tokens = sequence.num_prompt(),
                             .elapsed_ms = ms_between(sequence.prefill_begin, time)};
    const int64_t done = processed - sequence.first_cached;
    if (done > 0) {
      progress.eta_ms = progress.elapsed_ms / static_cast<double>(done) *
                        static_cast<double>(progress.total_tokens - processed);
    }
    output_.progress(chunk.id, progress);
  }
  if (report.is_finished) metrics_.observe_step(job_tokens, 0);
}

void EngineLoop::commit(const StepOutput& output) {
  const Clock::time_point time = Clock::now();
  std::vector<SampledToken> tokens;
  std::vector<FinishedSequence> finished = scheduler_.commit(output, tokens);
  for (const SampledToken& sampled : tokens) {
    const bool ends = std::ranges::any_of(finished, [&](const FinishedSequence& gone) {
      return gone.sequence->id() == sampled.id && gone.reason == FinishReason::kStop;
    });
    output_.token(sampled.id, sampled.token, ends ? TokenRole::kEnd : TokenRole::kText, time);
  }
  if (!tokens.empty()) metrics_.observe_step(0, static_cast<int64_t>(tokens.size()));
  for (FinishedSequence& gone : finished) finish(std::move(gone));
}

void EngineLoop::finish(FinishedSequence finished) {
  publish_load();  // who hears of its end finds the gauges without it
  if (finished.sequence->first_cached >= 0) {
    metrics_.count_prefix_cache(finished.sequence->num_prompt(), finished.sequence->first_cached);
  }
  output_.finish(finished.sequence->id(), completion_of(finished, is_forced_));
  live_.leave();
}

void EngineLoop::publish_load(const std::optional<QueueBounds::Arrival>& arrived) {
  num_running_ = scheduler_.num_running();
  bounds_.publish(scheduler_.queue(Clock::now()), arrived);
  num_pages_used_ = pool_.num_used();
  num_pages_cached_ = pool_.num_cached();
  metrics_.set_gauges({.num_running = num_running_,
                       .num_waiting = scheduler_.num_waiting(),
                       .num_pages_used = num_pages_used_,
                       .num_pages_cached = num_pages_cached_,
                       .num_pages = pool_.num_pages()});
  publish_tiers(pool_, metrics_);
  for (; num_preemptions_seen_ < scheduler_.num_preemptions(); ++num_preemptions_seen_) {
    metrics_.count_preemption();
  }
}

}  // namespace pbserve::engine
