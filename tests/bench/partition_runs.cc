#include "tests/bench/partition_runs.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "engine/slice_pacer.h"
#include "kernels/core/bits.h"
#include "kernels/ops/pbs.h"

namespace pbserve::bench {

using engine::PrefillPass;
using kernels::Event;
using kernels::kPbsBlock;

namespace {

// Steps with a mark at the end of each; two in flight, as in the engine.
class Steps {
 public:
  Steps(DecodeSide& decode, const DecodeRows& rows) : decode_(decode), rows_(rows) {}

  void step() {
    if (ends_.size() >= 2) ends_[ends_.size() - 2].wait();
    decode_.step(rows_);
    ends_.emplace_back(decode_.stream());
    ends_.back().record(decode_.stream());
  }

  size_t size() const { return ends_.size(); }
  double ms_of(const Event& event) const { return event.ms_since(ends_.front()); }

  // Of the steps that overlap [begin, end), counted from the first step's end.
  StepTimes times(double begin, double end) const {
    ends_.back().wait();
    std::vector<double> gaps;
    for (size_t i = 1; i < ends_.size(); ++i) {
      const double from = ms_of(ends_[i - 1]);
      const double to = ms_of(ends_[i]);
      if (to > begin && from < end) gaps.push_back(to - from);
    }
    if (gaps.empty()) return {};
    std::ranges::sort(gaps);
    const auto rank = [&](double share) {
      return gaps[static_cast<size_t>(share * static_cast<double>(gaps.size() - 1) + 0.5)];
    };
    return {.num_steps = static_cast<int>(gaps.size()),
            .p50 = rank(0.5),
            .p99 = rank(0.99),
            .max = gaps.back()};
  }

 private:
  DecodeSide& decode_;
  const DecodeRows& rows_;
  std::vector<Event> ends_;
};

// In whole passes, few of them queued at a time: a stream that is full holds up whoever launches.
void run_job(PrefillSide& prefill, bool pbs) {
  constexpr size_t kQueued = 4;
  std::vector<Event> ends;
  for (size_t i = 0; i < kQueued; ++i) ends.emplace_back(prefill.stream());
  prefill.load(pbs);
  for (size_t item = 0; !prefill.done(); ++item) {
    Event& end = ends[item % kQueued];
    end.wait();
    prefill.run_item(prefill.job_rows());
    end.record(prefill.stream());
  }
}

constexpr size_t kLeadingSteps = 4;  // before a job: steps run at their usual pace by then

// One stream: a step, then a slice, until the job is done; the last slice's step too.
Interference alternate(PrefillSide& prefill, DecodeSide& decode, const DecodeRows& rows, bool pbs,
                       const std::function<void()>& run_slice) {
  Steps steps(decode, rows);
  while (steps.size() < kLeadingSteps) steps.step();
  Event begin(prefill.stream());
  Event end(prefill.stream());
  begin.record(prefill.stream());
  prefill.load(pbs);
  while (!prefill.done()) {
    run_slice();
    if (prefill.done()) end.record(prefill.stream());
    steps.step();
  }
  end.wait();
  return {.steps = steps.times(steps.ms_of(begin), steps.ms_of(end)),
          .job_ms = end.ms_since(begin)};
}

}  // namespace

StepTimes decode_alone(DecodeSide& decode, const DecodeRows& rows, int num_steps) {
  Steps steps(decode, rows);
  while (steps.size() < kLeadingSteps + static_cast<size_t>(num_steps)) steps.step();
  return steps.times(0, 1e9);
}

double prefill_alone(PrefillSide& prefill, bool pbs, int num_runs) {
  double best = 0;
  Event begin(prefill.stream());
  Event end(prefill.stream());
  for (int run = 0; run < num_runs; ++run) {
    begin.record(prefill.stream());
    run_job(prefill, pbs);
    end.record(prefill.stream());
    end.wait();
    const double ms = end.ms_since(begin);
    best = run == 0 ? ms : std::min(best, ms);
  }
  return best;
}

Interference at_once(PrefillSide& prefill, DecodeSide& decode, const DecodeRows& rows, bool pbs) {
  Steps steps(decode, rows);
  while (steps.size() < kLeadingSteps) steps.step();
  Event begin(prefill.stream());
  Event end(prefill.stream());
  std::atomic<bool> is_done = false;
  std::thread job([&] {  // of its own: a launch that waits for room would hold back the steps'
    prefill.stream().bind_thread();
    begin.record(prefill.stream());
    run_job(prefill, pbs);
    end.record(prefill.stream());
    end.wait();
    is_done = true;
  });
  while (!is_done) steps.step();
  job.join();
  const StepTimes times = steps.times(steps.ms_of(begin), steps.ms_of(end));
  return {.steps = times, .job_ms = end.ms_since(begin)};
}

PassCosts pass_costs(PrefillSide& prefill, bool pbs) {
  PassCosts costs{};
  std::array<int64_t, engine::kNumPrefillPasses> units{};
  Event begin(prefill.stream());
  Event end(prefill.stream());
  prefill.load(pbs);
  while (!prefill.done()) {
    const PrefillPass pass = prefill.next_pass();
    begin.record(prefill.stream());
    const int64_t num_rows = prefill.run_item(prefill.job_rows());
    end.record(prefill.stream());
    end.wait();
    costs[static_cast<size_t>(pass)] += end.ms_since(begin);
    units[static_cast<size_t>(pass)] += pass == PrefillPass::kOrder ? 1 : num_rows;
  }
  for (size_t i = 0; i < costs.size(); ++i) {
    if (units[i] > 0) costs[i] /= static_cast<double>(units[i]);
  }
  return costs;
}

Interference in_slices(PrefillSide& prefill, DecodeSide& decode, const DecodeRows& rows, bool pbs,
                       double slice_ms, const PassCosts& costs) {
  constexpr double kLeastItem = 0.2;  // of a slice: a smaller rest is not worth a cut
  return alternate(prefill, decode, rows, pbs, [&] {
    double spent = 0;
    while (!prefill.done()) {
      const PrefillPass pass = prefill.next_pass();
      const double cost = costs[static_cast<size_t>(pass)];
      const double left = slice_ms - spent;
      if (spent > 0 && left < kLeastItem * slice_ms) return;
      if (pass == PrefillPass::kOrder) {
        if (spent > 0 && cost > left) return;
        prefill.run_item(prefill.job_rows());
        spent += cost;
        continue;
      }
      const auto fitting = static_cast<int64_t>(left / cost);
      const int64_t num_rows = std::clamp<int64_t>(kernels::align_down<int64_t>(fitting, kPbsBlock),
                                                   kPbsBlock, prefill.job_rows());
      spent += cost * static_cast<double>(prefill.run_item(num_rows));
    }
  });
}

Interference paced(PrefillSide& prefill, DecodeSide& decode, const DecodeRows& rows, bool pbs,
                   double slice_ms) {
  engine::SlicePacer pacer(prefill.stream(), prefill.job_rows());
  return alternate(prefill, decode, rows, pbs, [&] {
    pacer.begin_slice(slice_ms);
    do {
      const int64_t num_rows = pacer.begin_item(prefill.next_pass());
      pacer.end_item(prefill.run_item(num_rows));
    } while (!prefill.done() && pacer.fits(prefill.next_pass()));
  });
}

}  // namespace pbserve::bench
