#include "engine/model_runner.h"

#include <algorithm>
#include <utility>

#include "engine/batch_builder.h"
#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/sample.h"

namespace pbserve::engine {

using kernels::align_up;
using kernels::ceil_div;
using kernels::DType;
using kernels::kPageSize;
using kernels::Tensor;
using kernels::Workspace;

namespace {

// Rows of one prefill item. Beyond a thousand the matrix products gain nothing on the CPU (demo
// model); a GPU's are at their full rate from some thousands on.
int64_t item_rows_max(kernels::Device device) {
  return device.kind == kernels::DeviceKind::kCuda ? 8192 : 1024;
}

int64_t pages_max(const RunnerLimits& limits) {
  return ceil_div<int64_t>(limits.max_model_len, kPageSize);
}

// Arrays of one step: per row a block table, the decode arrays, and two draws (decode, job's end).
int64_t step_arena_bytes(const RunnerLimits& limits) {
  constexpr int64_t kNumArrays = 32;
  const int64_t row_bytes = 4 * pages_max(limits) + 2 * (4 * kernels::kMaxBannedIds + 8 * 16);
  return limits.num_slots * row_bytes + kNumArrays * int64_t{Workspace::kAlignment};
}

int64_t lane_arena_bytes(const RunnerLimits& limits, int64_t rows, int64_t num_chunks) {
  constexpr int64_t kNumArrays = 5;
  const int64_t row_bytes = 4 + 4 + 8 + 8;  // id, position, slot in the pool, slot of the job
  return rows * row_bytes + num_chunks * 4 * pages_max(limits) +
         kNumArrays * int64_t{Workspace::kAlignment};
}

}  // namespace

ModelRunner::Buffers ModelRunner::Buffers::take(const RunnerLimits& limits,
                                                const models::ModelConfig& config, DType dtype,
                                                kernels::Device device, Workspace& workspace) {
  const int64_t num_slots = limits.num_slots;
  const ChunkRules& chunks = limits.chunks;
  const int64_t item_rows =
      std::min(item_rows_max(device), align_up<int64_t>(chunks.main_rows, kernels::kPbsBlock));
  const auto take_lane = [&](Lane lane) {
    return PrefillLane::Buffers::take(config, dtype, chunks.rows(lane), limits.max_model_len,
                                      device, workspace);
  };
  const auto take_bytes = [&](int64_t num_bytes) {
    return workspace.take(DType::kU8, {num_bytes});
  };
  return {.scratch =
              models::LayerScratch::take(config, dtype, std::max(item_rows, num_slots), workspace),
          .lanes = {take_lane(Lane::kMain), take_lane(Lane::kExpress)},
          .lane_arrays = {take_bytes(lane_arena_bytes(limits, chunks.main_rows, 1)),
                          take_bytes(lane_arena_bytes(limits, chunks.express_rows, num_slots))},
          .decode = DecodePass::Buffers::take(config, dtype, num_slots, device, workspace),
          .step_arrays = take_bytes(step_arena_bytes(limits)),
          .last_hidden = workspace.take(DType::kF32, {num_slots, config.hidden_size}),
          .sampler = Sampler::take(config, num_slots, workspace)};
}

size_t ModelRunner::workspace_bytes(const RunnerLimits& limits, const models::ModelConfig& config,
                                    DType dtype, kernels::Device device) {
  Workspace measure;
  Buffers::take(limits, config, dtype, device, measure);
  return measure.used_bytes();
}

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::create(
    const EngineConfig& options, const RunnerLimits& limits, const models::Transformer& transformer,
    const KvCachePool& pool, const kernels::Stream& stream) {
  const kernels::Device device = stream.device();
  const models::ModelConfig& config = transformer.config();
  const size_t bytes = workspace_bytes(limits, config, transformer.dtype(), device);
  ASSIGN_OR_RETURN(auto memory, kernels::DeviceBuffer::create(device, bytes));
  Workspace workspace(memory.data(), memory.size());
  Buffers buffers = Buffers::take(limits, config, transformer.dtype(), device, workspace);

  std::vector<PrefillLane> lanes;
  for (size_t i = 0; i < kNumLanes; ++i) {
    ASSIGN_OR_RETURN(UploadArena arena, UploadArena::create(buffers.lane_arrays[i], stream));
    lanes.emplace_back(buffers.lanes[i], static_cast<int>(config.num_layers), std::move(arena));
  }
  std::vector<StepSlot> slots;
  for (int i = 0; i < kStepsInFlight; ++i) {
    ASSIGN_OR_RETURN(UploadArena arena, UploadArena::create(buffers.step_arrays, stream));
    ASSIGN_OR_RETURN(auto tokens,
                     kernels::PinnedBuffer::create(device, limits.num_slots * sizeof(int32_t)));
    ASSIGN_OR_RETURN(auto counts,
                     kernels::PinnedBuffer::create(
                         device, PbsCounts::num_bytes(config.num_layers, config.num_q_heads)));
    slots.push_back({.arena = std::move(arena),
                     .tokens = std::move(tokens),
                     .counts = std::move(counts),
                     .done = kernels::Event(stream)});
  }
  ForwardContext context{.transformer = transformer,
                         .pool = pool,
                         .stream = stream,
                         .scratch = buffers.scratch,
                         .pbs = options.pbs,
                         .pages_max = pages_max(limits)};
  auto runner = std::unique_ptr<ModelRunner>(new ModelRunner(
      limits, context, std::move(buffers), std::move(memory), std::move(lanes), std::move(slots)));
  if (device.kind == kernels::DeviceKind::kCuda) RETURN_IF_ERROR(runner->warm_up(options.device));
  return runner;
}

ModelRunner::ModelRunner(const RunnerLimits& limits, ForwardContext context, Buffers buffers,
                         kernels::DeviceBuffer memory, std::vector<PrefillLane> lanes,
                         std::vector<StepSlot> slots)
    : limits_(limits),
      context_(context),
      buffers_(std::move(buffers)),
      memory_(std::move(memory)),
      lanes_(std::move(lanes)),
      decode_(buffers_.decode),
      slots_(std::move(slots)) {
  const int64_t item_rows =
      kernels::align_down<int64_t>(buffers_.scratch.normed.dim(0), kernels::kPbsBlock);
  for (int i = 0; i < kNumLanes; ++i) pacers_.emplace_back(context_.stream, item_rows);
  // Padding rows read their slots before they first write them.
  const Tensor tokens = buffers_.sampler.slot_tokens();
  kernels::fill_zero(tokens.data, tokens.numel() * sizeof(int32_t), context_.stream);
}

absl::Status ModelRunner::warm_up(const DeviceOptions& options) {
  UploadArena& arena = slots_.front().arena;
  lane(Lane::kMain).warm_up(context_);
  decode_.warm_up(buffers_.sampler, arena, context_);
  if (options.enforce_eager) return absl::OkStatus();
  return decode_.record(buffers_.sampler, arena, context_);
}

ModelRunner::StepSlot& ModelRunner::next_slot(const StepPlan& plan) {
  check(num_in_flight() < kStepsInFlight, "too many steps in flight");
  StepSlot& slot = slots_[num_launched_++ % kStepsInFlight];
  slot.arena.reset();
  slot.step = plan.step;
  slot.drawn.clear();
  slot.reports.clear();
  return slot;
}

void ModelRunner::read_back(StepSlot& slot) {
  const Tensor tokens = buffers_.sampler.slot_tokens().rows(0, limits_.num_slots);
  kernels::copy_to_host(slot.tokens.data(), tokens.data, tokens.numel() * sizeof(int32_t),
                        context_.stream);
  slot.done.record(context_.stream);
  in_flight_.push_back(&slot);
}

void ModelRunner::launch(const StepPlan& plan, const SequenceMap& sequences) {
  for (Lane aborted : plan.aborts) lane(aborted).clear();
  if (plan.start) lane(plan.start->lane).load(plan.start->chunks, sequences, context_);
  if (plan.decode.empty()) return;
  StepSlot& slot = next_slot(plan);
  decode_.run(plan.decode, sequences, buffers_.sampler, slot.arena, context_);
  for (const DecodeRow& row : plan.decode) {
    slot.drawn.emplace_back(row.id, sequences.at(row.id)->slot);
  }
  read_back(slot);
}

SliceReport ModelRunner::run_slice(const StepPlan& plan, const SequenceMap& sequences,
                                   const std::function<void()>& after_first_item) {
  PrefillLane& job = lane(plan.slice.value());
  SlicePacer& pacer = pacers_[static_cast<size_t>(*plan.slice)];
  pacer.begin_slice(plan.slice_ms);
  bool is_first = true;
  do {
    const int64_t rows = pacer.begin_item(job.next_pass());
    pacer.end_item(job.run_item(rows, context_));
    if (std::exchange(is_first, false)) after_first_item();
  } while (!job.done() && pacer.fits(job.next_pass()));
  const SliceReport report{.is_finished = job.done(), .fraction = job.fraction()};
  if (job.done()) finish_job(job, sequences, next_slot(plan));
  return report;
}

void ModelRunner::finish_job(PrefillLane& job, const SequenceMap& sequences, StepSlot& slot) {
  const kernels::Stream& stream = context_.stream;
  slot.reports = job.reports(context_);
  slot.pbs_layers = job.pbs_layers(context_);
  job.counts().copy_to_host(slot.counts.data(), stream);
  std::vector<DrawRow> draws;
  std::vector<int32_t> hidden_rows;
  for (const auto& [chunk, last_row] : job.drawing_chunks()) {
    const auto found = sequences.find(chunk.id);
    if (found == sequences.end()) continue;  // it left while the job ran
    draws.push_back({found->second.get(), chunk.end});
    slot.drawn.emplace_back(chunk.id, found->second->slot);
    hidden_rows.push_back(last_row);
  }
  if (!draws.empty()) {
    const Tensor hidden = buffers_.last_hidden.rows(0, static_cast<int64_t>(draws.size()));
    const Tensor ids = slot.arena.put(hidden_rows);
    const SampleInput input = SampleInput::put(build_sample_batch(draws), slot.arena);
    slot.arena.upload(stream);
    kernels::embedding({.y = hidden, .ids = ids, .index = {}, .table = job.hidden()}, stream);
    buffers_.sampler.draw(input, hidden, context_);
  }
  job.clear();
  read_back(slot);
}

StepOutput ModelRunner::collect() {
  check(!in_flight_.empty(), "no step in flight");
  StepSlot& slot = *in_flight_.front();
  in_flight_.pop_front();
  slot.done.wait();
  StepOutput output{.step = slot.step, .tokens = {}, .reports = std::move(slot.reports)};
  const auto* tokens = reinterpret_cast<const int32_t*>(slot.tokens.data());
  for (const auto& [id, sequence_slot] : slot.drawn) {
    output.tokens.push_back({id, tokens[sequence_slot]});
  }
  for (ChunkReport& report : output.reports) {
    PbsCounts::complete(report, slot.pbs_layers, slot.counts.data());
  }
  return output;
}

}  // namespace pbserve::engine
