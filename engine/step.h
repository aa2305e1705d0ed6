// What travels between Scheduler and ModelRunner, which do not know each other: the plan of one
// step, what was launched of it (known at once), and its results (known when the device is done).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/sequence.h"

namespace pbserve::engine {

// A lane carries one prefill job at a time and keeps its state between slices. A job that is
// overtaken keeps the main lane; what overtakes it runs in the express lane, whose jobs are
// smaller, so that the next one to overtake soon finds it free. Several short prompts share a job
// there.
enum class Lane : uint8_t { kMain, kExpress };
inline constexpr int kNumLanes = 2;
inline constexpr std::array<Lane, kNumLanes> kLanes = {Lane::kMain, Lane::kExpress};

// A layer of a prefill job: all rows through one pass, then through the next. PBS alone orders.
enum class PrefillPass : uint8_t { kProject, kOrder, kAttend };
inline constexpr int kNumPrefillPasses = 3;

// Tokens [begin, end) of one sequence, prefilled together.
struct PrefillChunk {
  SequenceId id = 0;
  int64_t begin = 0;
  int64_t end = 0;
  bool pbs = false;
  float pbs_threshold = 0.0f;
  int64_t prompt_len = 0;     // of the sequence: PBS keeps the prompt's end dense
  bool pools_prefix = false;  // the pages before `begin` may lack k_mean and k_var
  bool draws_token = false;   // the sequence has no further token to compute: sample the next one
};

struct DecodeRow {
  SequenceId id = 0;
  int64_t position = 0;  // of the input token, whose K/V the step writes
};

struct LaneStart {
  Lane lane = Lane::kMain;
  std::vector<PrefillChunk> chunks;
};

// The runner reads tokens, pages and sampling parameters from the sequences named here while it
// launches the plan; it keeps no pointer to them afterwards. All steps run in one order on the
// device, so a page given back after a launch may be handed out again at once: whoever gets it
// writes it in a later step.
struct StepPlan {
  int64_t step = 0;
  std::vector<Lane> aborts;        // lanes whose job is dropped, before anything else
  std::optional<LaneStart> start;  // a job to load into an idle lane
  std::optional<Lane> slice;       // the lane to advance
  double slice_ms = 0;             // for this long
  std::vector<DecodeRow> decode;

  bool empty() const { return !slice.has_value() && decode.empty(); }
};

// What a slice got done, known once it has been launched.
struct SliceReport {
  bool is_finished = false;  // all work of the lane's job has been launched
  double fraction = 0;       // of the job
};

struct ChunkReport {
  SequenceId id = 0;
  BlockCounts blocks;
  CoverageSums coverage;
};

struct SampledToken {
  SequenceId id = 0;
  int32_t token = 0;
};

struct StepOutput {
  int64_t step = 0;
  std::vector<SampledToken> tokens;
  std::vector<ChunkReport> reports;  // of the job that finished in this step
};

}  // namespace pbserve::engine
