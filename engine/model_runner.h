// ModelRunner: executes StepPlans: builds the arrays, runs the network, samples, reads back. Makes
// no decision but one: how many items of a prefill job fit into the plan's slice. All device memory
// beside weights and pages is taken here, once. Engine thread only.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "engine/config.h"
#include "engine/decode_pass.h"
#include "engine/kv_cache_pool.h"
#include "engine/prefill_chunks.h"
#include "engine/prefill_cost.h"
#include "engine/prefill_lane.h"
#include "engine/sampler.h"
#include "engine/slice_pacer.h"
#include "engine/step.h"
#include "models/transformer.h"

namespace pbserve::engine {

struct RunnerLimits {
  int32_t num_slots = 1;      // sequences that decode together
  int64_t max_model_len = 1;  // tokens of one sequence
  ChunkRules chunks;
  PrefillCost::Prior cost{1, 0};
};

class ModelRunner {
 public:
  // Launched and not yet collected: decode rows and those of the step after, or a finished job.
  static constexpr int kStepsInFlight = 2;

  // Pool and stream outlive the runner. kResourceExhausted names the bytes that were missing. On
  // a GPU, what first runs of decode and of the row-wise operations of prefill cost (loading code,
  // choosing algorithms, recording graphs) is paid here.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> create(const EngineConfig& config,
                                                             const RunnerLimits& limits,
                                                             const models::Transformer& transformer,
                                                             const KvCachePool& pool,
                                                             const kernels::Stream& stream);

  // Device bytes `create` will take, for sizing the pool before it.
  static size_t workspace_bytes(const RunnerLimits& limits, const models::ModelConfig& config,
                                kernels::DType dtype, kernels::Device device);

  kernels::Device device() const { return context_.stream.device(); }

  // The engine's thread, before its first launch.
  void bind_thread() const { context_.stream.bind_thread(); }

  // Takes over the plan's aborts and its start, and queues its decode rows.
  void launch(const StepPlan& plan, const SequenceMap& sequences);

  // Runs the plan's slice, item after item, and returns when all but the last have run.
  // `after_first_item` is called when the first one is queued behind the decode rows: what they
  // drew can be collected while it runs. REQUIRES: the plan was launched and has a slice.
  SliceReport run_slice(const StepPlan& plan, const SequenceMap& sequences,
                        const std::function<void()>& after_first_item);

  // Waits for the oldest results in flight, of decode rows or of a finished job, and returns them.
  StepOutput collect();
  int num_in_flight() const { return static_cast<int>(in_flight_.size()); }

 private:
  // Everything carved out of the workspace.
  struct Buffers {
    models::LayerScratch scratch;
    std::array<PrefillLane::Buffers, kNumLanes> lanes;
    std::array<kernels::Tensor, kNumLanes> lane_arrays;  // [bytes] uint8 each: of their arenas
    DecodePass::Buffers decode;
    kernels::Tensor step_arrays;  // [bytes] uint8: of all steps' arenas
    kernels::Tensor last_hidden;  // [num_slots, C] float32: rows of a job that draw
    Sampler sampler;

    static Buffers take(const RunnerLimits& limits, const models::ModelConfig& config,
                        kernels::DType dtype, kernels::Device device,
                        kernels::Workspace& workspace);
  };
  // What one step in flight needs until it is collected.
  struct StepSlot {
    UploadArena arena;
    kernels::PinnedBuffer tokens;  // [num_slots] int32
    kernels::PinnedBuffer counts;  // of PbsCounts
    kernels::Event done;
    int64_t step = 0;
    std::vector<std::pair<SequenceId, int32_t>> drawn{};  // sequence, its slot
    std::vector<ChunkReport> reports{};
    std::vector<bool> pbs_layers{};  // whose reports come from `counts`
  };

  ModelRunner(const RunnerLimits& limits, ForwardContext context, Buffers buffers,
              kernels::DeviceBuffer memory, std::vector<PrefillLane> lanes,
              std::vector<StepSlot> slots);

  absl::Status warm_up(const DeviceOptions& options);
  StepSlot& next_slot(const StepPlan& plan);
  void read_back(StepSlot& slot);
  void finish_job(PrefillLane& lane, const SequenceMap& sequences, StepSlot& slot);
  PrefillLane& lane(Lane lane) { return lanes_[static_cast<size_t>(lane)]; }

  RunnerLimits limits_;
  ForwardContext context_;
  Buffers buffers_;
  kernels::DeviceBuffer memory_;
  std::vector<PrefillLane> lanes_;  // by Lane
  DecodePass decode_;
  std::vector<SlicePacer> pacers_;  // by Lane: the two kinds of job differ in the cost of a row
  std::vector<StepSlot> slots_;     // used in turn
  int64_t num_launched_ = 0;
  std::deque<StepSlot*> in_flight_;
};

}  // namespace pbserve::engine
