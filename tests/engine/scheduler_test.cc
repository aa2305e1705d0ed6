#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "kernels/ops/sample.h"
#include "tests/engine/scheduler_fixture.h"

namespace pbserve::engine {
namespace {

TEST_F(SchedulerTest, ShortPromptsShareAJobBeforeALongOne) {
  make(64, 8);
  set_ms_per_row(0.01);
  add(make_spec(1, 1000, 4, 0));
  add(make_spec(2, 100, 4, 10000));
  add(make_spec(3, 100, 4, 20000));
  add(make_spec(4, 100, 4, 30000));
  const StepPlan plan = step();
  ASSERT_TRUE(plan.start);
  EXPECT_EQ(plan.start->lane, Lane::kExpress);
  EXPECT_EQ(plan.start->chunks.size(), 2u) << "256 rows hold two prompts of 100";
  EXPECT_EQ(step_until_start().start->chunks.front().id, 4u);
  EXPECT_EQ(step_until_start().start->lane, Lane::kMain);
  run_until_done(100);
  EXPECT_EQ(finished_.size(), 4u);
}

// The job that is overtaken keeps its lane and what it has done.
TEST_F(SchedulerTest, AShorterPromptOvertakesInTheMiddleOfAJob) {
  make(64, 8);
  set_ms_per_row(0.05);
  add(make_spec(1, 1000, 2, 0));
  step();
  add(make_spec(2, 600, 2, 10000));
  StepPlan plan = step();
  ASSERT_TRUE(plan.start);
  EXPECT_EQ(plan.slice, Lane::kExpress);
  EXPECT_EQ(plan.start->chunks.front().end, 256) << "as many rows as the lane holds";
  add(make_spec(3, 50, 2, 20000));
  EXPECT_EQ(step().slice, Lane::kExpress) << "both lanes are busy: the smaller job ends first";
  plan = step_until_start();
  EXPECT_EQ(plan.start->chunks.front().id, 3u);
  EXPECT_EQ(scheduler_->job(Lane::kMain).size(), 1u);
  run_until_done(200);
  ASSERT_EQ(finished_.size(), 3u);
  EXPECT_EQ(finished_[0].sequence->id(), 3u);
  EXPECT_EQ(finished_[1].sequence->id(), 2u);
}

// The first prompt of a job evicts what the second one had in the cache.
TEST_F(SchedulerTest, AJobNeverGrowsBeyondItsLane) {
  make(8, 4);
  set_ms_per_row(0.001);
  for (const auto& [id, length, first] :
       {std::tuple{1, 600, 0}, {2, 383, 10000}, {3, 127, 20000}}) {
    add(make_spec(static_cast<SequenceId>(id), length, 2, first));
    run_until_done(50);
  }
  EXPECT_EQ(pool_->num_free() + pool_->num_cached(), 8);
  add(make_spec(4, 60, 2, 30000));
  add(make_spec(5, 600, 2));
  const StepPlan plan = step();
  ASSERT_TRUE(plan.start);
  int64_t rows = 0;
  for (const PrefillChunk& chunk : plan.start->chunks) rows += chunk.end - chunk.begin;
  EXPECT_LE(rows, kRules.express_rows);
  run_until_done(50);
}

TEST_F(SchedulerTest, APriorityGoesBeforeACost) {
  make(64, 8);
  SequenceSpec urgent = make_spec(1, 400, 2, 0);
  urgent.priority = -3;
  SequenceSpec idle = make_spec(2, 200, 2, 10000);
  idle.priority = 3;
  add(std::move(idle));
  add(make_spec(3, 300, 2, 20000));
  add(std::move(urgent));
  run_until_done(200);
  ASSERT_EQ(finished_.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(finished_[i].sequence->id(), (std::vector<SequenceId>{1, 3, 2})[i]);
  }
}

TEST_F(SchedulerTest, StopTokensAndLengthEndASequence) {
  make(64, 8);
  SequenceSpec stops = make_spec(1, 10, 50);
  stops.stop_ids = {kStopToken};
  add(std::move(stops));
  add(make_spec(2, 10, 3, 500));
  step();
  runner_.next_token = kStopToken;
  run_until_done(10);
  ASSERT_EQ(finished_.size(), 2u);
  for (const FinishedSequence& gone : finished_) {
    const bool stopped = gone.sequence->id() == 1;
    EXPECT_EQ(gone.reason, stopped ? FinishReason::kStop : FinishReason::kLength);
    EXPECT_EQ(gone.sequence->num_generated(), stopped ? 2 : 3);
  }
}

TEST_F(SchedulerTest, APromptThatCameBeforeStartsFromItsPages) {
  make(64, 8);
  add(make_spec(1, 300, 2));
  run_until_done(20);
  add(make_spec(2, 300, 2));
  SequenceSpec other_salt = make_spec(3, 300, 2);
  other_salt.cache_root = "dense|salt";
  add(std::move(other_salt));
  run_until_done(20);
  ASSERT_EQ(finished_.size(), 3u);
  for (const FinishedSequence& gone : finished_) {
    EXPECT_EQ(gone.sequence->first_cached, gone.sequence->id() == 2 ? 256 : 0);
  }
}

TEST_F(SchedulerTest, TheYoungestGivesWayWhenPagesRunOutAndLosesNothing) {
  make(5, 4, /*prefix_caching=*/false);
  add(make_spec(1, 120, 250, 0));
  add(make_spec(2, 120, 250, 10000));
  run_until_done(2000);
  ASSERT_EQ(finished_.size(), 2u);
  EXPECT_GT(scheduler_->num_preemptions(), 0);
  EXPECT_EQ(finished_[0].sequence->id(), 1u);
  for (const FinishedSequence& gone : finished_) {
    EXPECT_EQ(gone.sequence->num_generated(), 250);
  }
}

TEST_F(SchedulerTest, WhatCanNeverFitFailsWithTheNumbers) {
  make(3, 4);
  add(make_spec(1, 400, 10));
  step();
  ASSERT_EQ(finished_.size(), 1u);
  EXPECT_EQ(finished_[0].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(finished_[0].status.ToString().find("needs 4 cache pages"), std::string::npos);
}

// A stream that finds no page takes it from a prompt under way, which keeps what it has computed as
// far as the pages last.
TEST_F(SchedulerTest, APrefillYieldsItsPagesToStreams) {
  make(16, 8);
  set_slices_per_job(400);
  for (SequenceId id : {1, 2, 3}) {
    add(make_spec(id, 120, 500, static_cast<int32_t>(id) * 10000));
  }
  step();
  while (scheduler_->num_waiting() > 0) step();
  add(make_spec(9, 1200, 2, 90000));
  int64_t longest_wait = 0;
  std::map<SequenceId, int64_t> seen;
  for (int64_t turn = 0; finished_.size() < 3; ++turn) {
    ASSERT_LT(turn, 5000);
    const StepPlan plan = step();
    for (const DecodeRow& row : plan.decode) {
      if (seen.contains(row.id)) longest_wait = std::max(longest_wait, turn - seen[row.id]);
      seen[row.id] = turn;
    }
  }
  EXPECT_LE(longest_wait, 1) << "no stream was stopped for the prompt's sake";
  run_until_done(5000);
  EXPECT_EQ(finished_.back().sequence->id(), 9u);
  EXPECT_EQ(pool_->num_used(), 0);
}

TEST_F(SchedulerTest, ExpiredRequestsLeaveInAnyPhase) {
  make(64, 1);
  for (SequenceId id : {1, 2}) {
    SequenceSpec spec = make_spec(id, 100, 1000, static_cast<int32_t>(id) * 1000);
    spec.deadline = Clock::now() + std::chrono::milliseconds(5);
    add(std::move(spec));
  }
  step();
  EXPECT_TRUE(scheduler_->take_expired(Clock::now() - std::chrono::hours(1)).empty());
  EXPECT_EQ(scheduler_->take_expired(Clock::now() + std::chrono::seconds(1)).size(), 2u);
  EXPECT_EQ(pool_->num_used(), 0);
  scheduler_->check_integrity();
}

// A packed job goes on for the others when one of its prompts is cancelled: the pages it still
// writes must not be handed out meanwhile.
TEST_F(SchedulerTest, PagesOfACancelledPackedPromptStayUntilItsJobEnds) {
  make(64, 8);
  set_slices_per_job(3);
  add(make_spec(1, 100, 2, 0));
  add(make_spec(2, 100, 2, 10000));
  step();
  const int32_t used = pool_->num_used();
  ASSERT_TRUE(scheduler_->remove(1, FinishReason::kCancelled, absl::CancelledError("")));
  scheduler_->check_integrity();
  EXPECT_EQ(pool_->num_used(), used);
  run_until_done(20);
  EXPECT_EQ(pool_->num_used(), 0);
}

TEST_F(SchedulerTest, CancelAbortsALongJobAndFreesItsPagesAtOnce) {
  make(64, 8);
  set_slices_per_job(3);
  add(make_spec(1, 1000, 2, 0));
  step();
  ASSERT_TRUE(scheduler_->remove(1, FinishReason::kCancelled, absl::CancelledError("")));
  EXPECT_EQ(pool_->num_used(), 0);
  EXPECT_FALSE(scheduler_->remove(1, FinishReason::kCancelled, absl::CancelledError("")));
  add(make_spec(2, 1000, 2, 0));
  const StepPlan plan = step();
  EXPECT_EQ(plan.aborts, (std::vector<Lane>{Lane::kMain}));
  run_until_done(20);
}

TEST_F(SchedulerTest, ARowWithoutANumberFailsItsRequestAlone) {
  make(64, 8);
  add(make_spec(1, 50, 4, 0));
  runner_.next_token = kernels::kNoToken;
  step();
  ASSERT_EQ(finished_.size(), 1u);
  EXPECT_EQ(finished_[0].reason, FinishReason::kError);
  EXPECT_TRUE(absl::IsInternal(finished_[0].status)) << finished_[0].status;
  runner_.next_token = 5;
  add(make_spec(2, 50, 4, 10000));
  run_until_done(20);
  EXPECT_TRUE(finished_.back().status.ok());
}

// Random arrivals, cancels and steps, plain and overlapped; PBSERVE_SEED replays one.
TEST_F(SchedulerTest, RandomLifeKeepsEveryPageAccountedFor) {
  const char* given = std::getenv("PBSERVE_SEED");
  const uint64_t base = given != nullptr ? std::strtoull(given, nullptr, 10) : 20261123;
  for (uint64_t seed = base; seed < base + (given != nullptr ? 1 : 20); ++seed) {
    SCOPED_TRACE(testing::Message() << "PBSERVE_SEED=" << seed);
    std::mt19937_64 random(seed);
    const auto below = [&](int64_t limit) { return static_cast<int64_t>(random() % limit); };
    runner_ = FakeRunner{};
    scheduler_.reset();  // before the pool its tables refer to
    finished_.clear();
    make_with({.num_pages = 12 + below(30),
               .num_host_pages = below(2) * below(40),
               .max_held_share = static_cast<double>(1 + below(4)) / 4},
              static_cast<int32_t>(1 + below(6)), below(4) != 0);
    const int may_stay = static_cast<int>(below(2));
    std::set<SequenceId> submitted;
    for (SequenceId id = 1; id <= 150; ++id) {
      if (below(3) == 0) {
        SequenceSpec spec =
            make_spec(id, 1 + below(900), 1 + below(300), static_cast<int32_t>(below(3)) * 10000);
        spec.pbs = below(3) == 0;
        spec.cache_root = spec.pbs ? "pbs|" : "dense|";
        spec.stop_ids = {kStopToken};
        const float hold_s = below(2) == 0 ? 1e-3f * static_cast<float>(1 + below(1000)) : 0;
        add_held(std::move(spec), hold_s);
        submitted.insert(id);
      }
      if (below(6) == 0 && !submitted.empty()) {
        const SequenceId victim = *std::next(submitted.begin(), below(std::ssize(submitted)));
        auto gone = scheduler_->remove(victim, FinishReason::kCancelled, absl::CancelledError(""));
        if (gone) finished_.push_back(*std::move(gone));
        scheduler_->check_integrity();
      }
      runner_.next_token = below(40) == 0 ? kStopToken : static_cast<int32_t>(below(1000));
      set_slices_per_job(static_cast<int>(1 + below(4)));
      step(may_stay);
    }
    set_slices_per_job(1);
    for (int i = 0; !scheduler_->sequences().empty(); ++i) {
      ASSERT_LT(i, 50000) << "no forward progress";
      step(may_stay);
    }
    std::set<SequenceId> left;
    for (const FinishedSequence& gone : finished_) {
      EXPECT_TRUE(left.insert(gone.sequence->id()).second) << "finished twice";
      EXPECT_LE(gone.sequence->num_known(), gone.sequence->spec().num_tokens_max);
    }
    EXPECT_EQ(left, submitted);
    EXPECT_EQ(pool_->num_used(), 0);
  }
}

// Finding E3: a turn costs one hash for each prompt that is looked at.
TEST_F(SchedulerTest, WaitingPromptsOnOneBookCostOneHashEachATurn) {
  make(700, 8);
  constexpr int64_t kBook = 500 * kernels::kPageSize;
  add(make_spec(1, kBook, 1));
  run_until_done(500);
  set_slices_per_job(1000);
  add(make_spec(2, 200, 1, 1 << 24));  // holds the express lane
  step();
  for (SequenceId id = 10; id < 42; ++id) add(make_spec(id, kBook + 300, 1));
  step();
  EXPECT_EQ(scheduler_->num_waiting(), 32);
  step();
  EXPECT_LE(hashes_of_plan_, 32);
}

}  // namespace
}  // namespace pbserve::engine
