// What bench_partition measures of a rig: device times of decode steps and of a prefill job, apart
// and at once. All times in milliseconds.
#pragma once

#include <array>
#include <vector>

#include "tests/bench/partition_rig.h"

namespace pbserve::bench {

using DecodeRows = std::vector<engine::DecodeRow>;

// From the end of a step to the end of the next: what a reader of a stream waits.
struct StepTimes {
  int num_steps = 0;
  double p50 = 0;
  double p99 = 0;
  double max = 0;
};

// Steps back to back, without a job.
StepTimes decode_alone(DecodeSide& decode, const DecodeRows& rows, int num_steps);

// The fastest of some runs of a job, without decode.
double prefill_alone(PrefillSide& prefill, bool pbs, int num_runs);

struct Interference {
  StepTimes steps;  // those that ran while the job did, in part or in whole
  double job_ms = 0;
};

// A job on its stream while steps run back to back on theirs.
Interference at_once(PrefillSide& prefill, DecodeSide& decode, const DecodeRows& rows, bool pbs);

// What whole passes of a job take, per row (kOrder: at all).
using PassCosts = std::array<double, engine::kNumPrefillPasses>;
PassCosts pass_costs(PrefillSide& prefill, bool pbs);

// Both on one stream: between two steps as much of the job as takes `slice_ms` by its costs, in as
// few items as can be.
Interference in_slices(PrefillSide& prefill, DecodeSide& decode, const DecodeRows& rows, bool pbs,
                       double slice_ms, const PassCosts& costs);

// The same with the engine's pacer, which learns the costs while the job runs.
Interference paced(PrefillSide& prefill, DecodeSide& decode, const DecodeRows& rows, bool pbs,
                   double slice_ms);

}  // namespace pbserve::bench
