// Held pages in the Scheduler: who holds them, what waits beside them, and what breaks them.
#include <gtest/gtest.h>

#include "tests/engine/scheduler_fixture.h"

namespace pbserve::engine {
namespace {

using SchedulerHold = SchedulerTest;

TEST_F(SchedulerHold, HeldPagesOutliveOtherPrompts) {
  make(16, 2);
  add_held(make_spec(1, 600, 2), 10);
  run_until_done(20);
  EXPECT_EQ(finished_[0].sequence->num_held, 512);
  for (SequenceId id = 2; id < 6; ++id) {
    add(make_spec(id, 1200, 2, 10000 * static_cast<int32_t>(id)));
    run_until_done(50);
  }
  add(make_spec(9, 600, 2));
  now_ += std::chrono::seconds(9);
  run_until_done(20);
  EXPECT_EQ(finished_.back().sequence->first_cached, 512);
  EXPECT_EQ(finished_.back().sequence->num_held, 0) << "it did not ask";
  now_ += std::chrono::seconds(1);
  step();
  EXPECT_EQ(pool_->hold_state().num_pages, 0);
}

TEST_F(SchedulerHold, APromptThatDoesNotFitBesideHoldsBreaksThem) {
  make_with({.num_pages = 16, .max_held_share = 1}, 2);
  add_held(make_spec(1, 1000, 2, 10000), 200);
  add_held(make_spec(2, 1000, 2, 20000), 100);
  run_until_done(50);
  EXPECT_EQ(pool_->hold_state().num_pages, 14);
  add(make_spec(3, 900, 2, 30000));
  run_until_done(50);
  EXPECT_EQ(pool_->hold_state().num_broken, 1);
  add(make_spec(4, 1000, 2, 10000));
  run_until_done(50);
  EXPECT_EQ(finished_.back().sequence->first_cached, 896) << "that which ended first was broken";
  add(make_spec(5, 1800, 2, 40000));
  run_until_done(50);
  EXPECT_EQ(pool_->hold_state().num_broken, 2);
  EXPECT_EQ(finished_.size(), 5u);
  for (const FinishedSequence& gone : finished_) EXPECT_TRUE(gone.status.ok()) << gone.status;
}

// What runs is waited for: a prompt that will fit beside the holds breaks none.
TEST_F(SchedulerHold, APromptThatWaitsForOthersBreaksNoHold) {
  make(16, 4);
  add_held(make_spec(1, 1000, 2, 10000), 100);
  run_until_done(50);
  add(make_spec(2, 900, 30, 20000));
  add(make_spec(3, 900, 30, 30000));
  step();
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  run_until_done(200);
  EXPECT_EQ(pool_->hold_state().num_pages, 7);
  EXPECT_EQ(finished_.size(), 3u);
}

TEST_F(SchedulerHold, AStreamThatOutgrowsTheHoldsBreaksThem) {
  make(8, 2);
  add_held(make_spec(1, 600, 2, 10000), 100);
  run_until_done(50);
  EXPECT_EQ(pool_->hold_state().num_pages, 4);
  add(make_spec(2, 100, 900, 20000));
  run_until_done(2000);
  EXPECT_TRUE(finished_.back().status.ok()) << finished_.back().status;
  EXPECT_EQ(finished_.back().sequence->num_generated(), 900);
  EXPECT_EQ(pool_->hold_state().num_broken, 1);
}

// A stream that grew into the pages promised to a prompt under way ends and holds them.
TEST_F(SchedulerHold, APromptUnderWayGetsItsPagesInTheEnd) {
  make(16, 4);
  set_ms_per_row(1);
  add_held(make_spec(1, 200, 600, 10000), 3600);
  add(make_spec(2, 1300, 2, 20000));
  run_until_done(6000);
  EXPECT_EQ(finished_.size(), 2u);
  EXPECT_GT(pool_->hold_state().num_broken, 0);
}

TEST_F(SchedulerHold, WhatDidNotFinishIsNotHeld) {
  make(16, 2);
  add_held(make_spec(1, 600, 50), 100);
  for (int i = 0; i < 10; ++i) step();
  scheduler_->remove(1, FinishReason::kCancelled, absl::CancelledError(""));
  EXPECT_EQ(pool_->num_cached(), 4);
  EXPECT_EQ(pool_->hold_state().num_pages, 0);
}

}  // namespace
}  // namespace pbserve::engine
