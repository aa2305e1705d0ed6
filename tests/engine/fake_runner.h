// A runner without a device, for tests of the Scheduler: jobs take as long as they are told to, and
// every row draws the same token.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "engine/scheduler.h"
#include "kernels/core/check.h"

namespace pbserve::engine {

class FakeRunner {
 public:
  // Of a whole job; a slice does at most the plan's slice_ms of it.
  std::function<double(const std::vector<PrefillChunk>&)> job_ms = [](const auto&) { return 0.0; };
  int32_t next_token = 1;
  std::deque<StepOutput> in_flight;

  void launch(const StepPlan& plan, const SequenceMap& sequences) {
    for (const Lane lane : plan.aborts) jobs_.erase(lane);
    if (plan.start) {
      check(!jobs_.contains(plan.start->lane), "start of a busy lane");
      jobs_[plan.start->lane] = {plan.start->chunks, job_ms(plan.start->chunks), 0};
      for (const PrefillChunk& chunk : plan.start->chunks) check_pages(chunk, sequences);
    }
    if (plan.decode.empty()) return;
    StepOutput output{.step = plan.step, .tokens = {}, .reports = {}};
    for (const DecodeRow& row : plan.decode) {
      check(sequences.contains(row.id), "decode of a missing sequence");
      output.tokens.push_back({row.id, next_token});
    }
    in_flight.push_back(output);
  }

  // Adds the time it took to `ms`.
  SliceReport run_slice(const StepPlan& plan, const SequenceMap& sequences, double& ms) {
    Job& job = jobs_.at(*plan.slice);
    const double slice_ms = std::min(plan.slice_ms, job.ms - job.done_ms);
    ms += slice_ms;
    job.done_ms += slice_ms;
    if (job.done_ms < job.ms) return {.is_finished = false, .fraction = job.done_ms / job.ms};
    StepOutput output{.step = plan.step, .tokens = {}, .reports = {}};
    for (const PrefillChunk& chunk : job.chunks) {
      if (chunk.draws_token && sequences.contains(chunk.id)) {
        output.tokens.push_back({chunk.id, next_token});
      }
    }
    jobs_.erase(*plan.slice);
    in_flight.push_back(output);
    return {.is_finished = true, .fraction = 1};
  }

 private:
  struct Job {
    std::vector<PrefillChunk> chunks;
    double ms;
    double done_ms;
  };

  static void check_pages(const PrefillChunk& chunk, const SequenceMap& sequences) {
    const int64_t tokens = chunk.end + (chunk.draws_token ? 1 : 0);
    check(sequences.at(chunk.id)->blocks.num_pages() * int64_t{128} >= tokens,
          "a job without pages to write");
  }

  std::map<Lane, Job> jobs_;
};

}  // namespace pbserve::engine
