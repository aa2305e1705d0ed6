#include "engine/lane_jobs.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"

namespace pbserve::engine {

std::optional<Lane> LaneJobs::lane_of(SequenceId id) const {
  for (const Lane lane : kLanes) {
    if (std::ranges::find(chunks(lane), id, &PrefillChunk::id) != chunks(lane).end()) return lane;
  }
  return std::nullopt;
}

bool LaneJobs::is_alone(SequenceId id, const SequenceMap& alive) const {
  const std::optional<Lane> lane = lane_of(id);
  return !lane || std::ranges::none_of(chunks(*lane), [&](const PrefillChunk& chunk) {
    return chunk.id != id && alive.contains(chunk.id);
  });
}

void LaneJobs::start(Lane lane, std::vector<PrefillChunk> chunks) {
  check(is_idle(lane), "start in a busy lane");
  job(lane).chunks = std::move(chunks);
}

void LaneJobs::add(Lane lane, const PrefillChunk& chunk) { job(lane).chunks.push_back(chunk); }

void LaneJobs::remove(Sequence& sequence, const SequenceMap& alive) {
  const std::optional<Lane> lane = lane_of(sequence.id());
  if (!lane) return;
  Job& its = job(*lane);
  const bool goes_on = std::ranges::any_of(its.chunks, [&](const PrefillChunk& chunk) {
    return chunk.id != sequence.id() && alive.contains(chunk.id);
  });
  if (goes_on) {
    its.orphans.push_back(std::move(sequence.blocks));
  } else {
    its = Job{};
    aborts_.push_back(*lane);
  }
}

std::vector<Lane> LaneJobs::take_aborts() { return std::exchange(aborts_, {}); }

std::vector<PrefillChunk> LaneJobs::finish(Lane lane) {
  return std::exchange(job(lane), Job{}).chunks;
}

std::vector<const BlockTable*> LaneJobs::orphans() const {
  std::vector<const BlockTable*> tables;
  for (const Job& each : jobs_) {
    for (const BlockTable& orphan : each.orphans) tables.push_back(&orphan);
  }
  return tables;
}

}  // namespace pbserve::engine
