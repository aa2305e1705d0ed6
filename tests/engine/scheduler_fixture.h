// A Scheduler over a fake runner, with a clock that stands still but for what jobs take.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "engine/scheduler.h"
#include "tests/engine/fake_runner.h"
#include "tests/engine/sequence_factory.h"

namespace pbserve::engine {

inline constexpr ChunkRules kRules{.span = 512, .main_rows = 512, .express_rows = 256};
inline constexpr int32_t kStopToken = -7;
inline constexpr double kSliceMs = 1;

class SchedulerTest : public testing::Test {
 protected:
  void make(int64_t num_pages, int32_t num_slots, bool prefix_caching = true) {
    make_with({.num_pages = num_pages}, num_slots, prefix_caching);
  }
  void make_with(const KvCacheOptions& options, int32_t num_slots, bool prefix_caching = true) {
    pool_ = make_pool(stream_, options);
    const SchedulerLimits limits{.num_slots = num_slots,
                                 .chunks = kRules,
                                 .slice_ms = kSliceMs,
                                 .prefix_caching = prefix_caching};
    scheduler_ = std::make_unique<Scheduler>(limits, *pool_);
  }

  void add(SequenceSpec spec) {
    spec.submitted = now_;
    scheduler_->add(std::move(spec));
  }

  // One turn of the engine; the clock stands still but for what the runner says a slice took.
  StepPlan step(int may_stay = 0) {
    const int64_t num_hashes = pool_->num_hashes();
    const StepPlan plan = scheduler_->plan_step(now_);
    hashes_of_plan_ = pool_->num_hashes() - num_hashes;
    if (plan.empty() && runner_.in_flight.empty()) {
      if (auto stuck = scheduler_->take_stuck()) finished_.push_back(*std::move(stuck));
    }
    if (!plan.empty() || !plan.aborts.empty()) {
      runner_.launch(plan, scheduler_->sequences());
      scheduler_->launched(plan);
      if (plan.slice) {
        double ms = 0;
        const SliceReport report = runner_.run_slice(plan, scheduler_->sequences(), ms);
        now_ += std::chrono::microseconds(static_cast<int64_t>(1000 * ms));
        scheduler_->sliced(plan, report, now_);
      }
      now_ += std::chrono::microseconds(10);
    }
    const bool idle_turn = plan.empty();
    while (static_cast<int>(runner_.in_flight.size()) > (idle_turn ? 0 : may_stay)) {
      std::vector<SampledToken> tokens;
      for (FinishedSequence& gone : scheduler_->commit(runner_.in_flight.front(), tokens)) {
        finished_.push_back(std::move(gone));
      }
      runner_.in_flight.pop_front();
    }
    scheduler_->check_integrity();
    return plan;
  }

  StepPlan step_until_start() {
    StepPlan plan;
    for (int i = 0; i < 1000 && !plan.start; ++i) plan = step();
    check(plan.start.has_value(), "no job starts");
    return plan;
  }

  void set_slices_per_job(int count) {
    runner_.job_ms = [count](const auto&) { return static_cast<double>(count) * kSliceMs; };
  }

  // A row takes so long, whatever stands before it.
  void set_ms_per_row(double ms) {
    runner_.job_ms = [ms](const std::vector<PrefillChunk>& chunks) {
      double sum = 0;
      for (const PrefillChunk& chunk : chunks)
        sum += ms * static_cast<double>(chunk.end - chunk.begin);
      return sum;
    };
  }

  void run_until_done(int steps_max) {
    while (!scheduler_->sequences().empty()) {
      ASSERT_GT(steps_max--, 0) << "no forward progress";
      step();
    }
  }

  void add_held(SequenceSpec spec, float hold_s) {
    spec.cache_hold_s = hold_s;
    add(std::move(spec));
  }

  kernels::Stream stream_ = *kernels::Stream::create({}, 1);
  std::unique_ptr<KvCachePool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  FakeRunner runner_;
  std::vector<FinishedSequence> finished_;
  Clock::time_point now_ = Clock::now();
  int64_t hashes_of_plan_ = 0;
};

}  // namespace pbserve::engine
