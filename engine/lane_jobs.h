// LaneJobs: what the Scheduler knows of the prefill lanes: whose chunks each job holds, the time it
// has had, and the pages it goes on writing for sequences that have left. Engine thread only.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "engine/sequence.h"
#include "engine/step.h"

namespace pbserve::engine {

class LaneJobs {
 public:
  bool is_idle(Lane lane) const { return chunks(lane).empty(); }
  const std::vector<PrefillChunk>& chunks(Lane lane) const { return job(lane).chunks; }
  std::optional<Lane> lane_of(SequenceId id) const;
  // Whether no chunk of another one of `alive` is in its job.
  bool is_alone(SequenceId id, const SequenceMap& alive) const;

  void start(Lane lane, std::vector<PrefillChunk> chunks);  // REQUIRES: idle
  void add(Lane lane, const PrefillChunk& chunk);  // before the plan that starts it is made

  // Takes a sequence out that leaves or stops. A job goes on while one of `alive` is in it, and
  // keeps the pages it still writes; else it is aborted. Nothing if it has no chunk in a job.
  void remove(Sequence& sequence, const SequenceMap& alive);
  std::vector<Lane> take_aborts();  // lanes whose job the runner has to drop

  void spend(Lane lane, double ms) { job(lane).spent_ms += ms; }
  double spent_ms(Lane lane) const { return job(lane).spent_ms; }
  std::vector<PrefillChunk> finish(Lane lane);

  // Tables of sequences that have left, held by running jobs.
  std::vector<const BlockTable*> orphans() const;

 private:
  struct Job {
    std::vector<PrefillChunk> chunks;
    std::vector<BlockTable> orphans;
    double spent_ms = 0;
  };

  Job& job(Lane lane) { return jobs_[static_cast<size_t>(lane)]; }
  const Job& job(Lane lane) const { return jobs_[static_cast<size_t>(lane)]; }

  std::array<Job, kNumLanes> jobs_;
  std::vector<Lane> aborts_;
};

}  // namespace pbserve::engine
