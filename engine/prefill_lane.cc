#include "engine/prefill_lane.h"

#include <algorithm>
#include <numeric>

#include "engine/batch_builder.h"
#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/attention.h"

namespace pbserve::engine {

using kernels::align_down;
using kernels::ceil_div;
using kernels::DType;
using kernels::kPbsBlock;
using kernels::Tensor;

namespace {

kernels::PbsJob pbs_job(const PrefillChunk& chunk, const PbsOptions& pbs) {
  return {.begin = static_cast<int32_t>(chunk.begin),
          .end = static_cast<int32_t>(chunk.end),
          .span_len = static_cast<int32_t>(pbs.span),
          .prompt_len = static_cast<int32_t>(chunk.prompt_len)};
}

}  // namespace

PrefillLane::Buffers PrefillLane::Buffers::take(const models::ModelConfig& config, DType dtype,
                                                int64_t rows_max, int64_t context_len_max,
                                                kernels::Device device,
                                                kernels::Workspace& workspace) {
  const kernels::PbsPlanShape plan_shape{.num_q_heads = config.num_q_heads,
                                         .num_kv_heads = config.num_kv_heads,
                                         .head_dim = config.head_dim,
                                         .context_len_max = context_len_max,
                                         .job_rows_max = rows_max,
                                         .dtype = dtype};
  return {.hidden = workspace.take(DType::kF32, {rows_max, config.hidden_size}),
          .q = workspace.take(dtype, {rows_max, config.num_q_heads, config.head_dim}),
          .plan = kernels::take_pbs_plan(plan_shape, device, workspace),
          .counts = PbsCounts::take(config.num_layers, config.num_q_heads, workspace)};
}

PrefillLane::PrefillLane(const Buffers& buffers, int num_layers, UploadArena arena)
    : buffers_(buffers), arena_(std::move(arena)), num_layers_(num_layers) {}

void PrefillLane::warm_up(const ForwardContext& context) {
  check(idle(), "warm-up of a busy lane");
  const int64_t rows_max = std::min(buffers_.hidden.dim(0), context.scratch.normed.dim(0));
  arena_.reset();
  const std::vector<int32_t> positions(static_cast<size_t>(rows_max), 0);
  const std::vector<int64_t> no_slots(static_cast<size_t>(rows_max), -1);
  const models::RowInput input{arena_.put(positions), arena_.put(no_slots)};
  arena_.upload(context.stream);
  kernels::fill_zero(buffers_.hidden.data, rows_max * buffers_.hidden.dim(1) * sizeof(float),
                     context.stream);
  for (int64_t num_rows = 1; num_rows < 2 * rows_max; num_rows *= 2) {
    const int64_t end = std::min(num_rows, rows_max);
    const models::RowInput rows{input.positions.rows(0, end), input.slots.rows(0, end)};
    const Tensor hidden = buffers_.hidden.rows(0, end);
    context.transformer.project(0, rows, hidden, q_rows(0, end), context.pool.layer(0),
                                context.scratch, context.stream);
    context.transformer.finish(0, hidden, q_rows(0, end), context.scratch, context.stream);
  }
}

double PrefillLane::fraction() const {
  if (idle()) return 0.0;
  // The attend pass holds nearly all the work of a long context; its share need not be exact.
  constexpr double kProjectShare = 0.2;
  const double rows = static_cast<double>(row_) / static_cast<double>(num_rows_);
  const double of_layer = pass_ == PrefillPass::kProject ? kProjectShare * rows
                          : pass_ == PrefillPass::kOrder
                              ? kProjectShare
                              : kProjectShare + (1 - kProjectShare) * rows;
  return std::min(1.0, (layer_ + of_layer) / num_layers_);
}

void PrefillLane::load(const std::vector<PrefillChunk>& chunks, const SequenceMap& sequences,
                       const ForwardContext& context) {
  check(idle(), "load into a busy lane");
  check(std::ranges::none_of(chunks, &PrefillChunk::pbs) || chunks.size() == 1,
        "PBS chunks run one at a time");
  const kernels::Stream& stream = context.stream;
  const PrefillBatch batch = build_prefill_batch(chunks, sequences, context.pages_max);
  chunks_ = chunks;
  num_rows_ = static_cast<int64_t>(batch.ids.size());
  check(num_rows_ <= buffers_.hidden.dim(0), "more rows than the lane holds");
  arena_.reset();
  const Tensor ids = arena_.put(batch.ids);
  positions_ = arena_.put(batch.positions);
  kv_slots_ = arena_.put(batch.kv_slots);
  block_tables_ = arena_.put(std::span<const int32_t>(batch.block_tables),
                             {static_cast<int64_t>(chunks.size()), context.pages_max});
  if (chunks.front().pbs) {
    std::vector<int64_t> own_slots(batch.ids.size());
    std::iota(own_slots.begin(), own_slots.end(), 0);
    own_slots_ = arena_.put(own_slots);
  }
  arena_.upload(stream);
  buffers_.counts.clear(stream);
  context.transformer.embed(buffers_.hidden.rows(0, num_rows_), ids, /*index=*/{}, stream);
  layer_ = 0;
  pass_ = PrefillPass::kProject;
  row_ = 0;
}

int64_t PrefillLane::run_item(int64_t rows, const ForwardContext& context) {
  check(!idle() && !done(), "no item left to run");
  const int64_t end = std::min(row_ + rows, num_rows_);
  const int64_t begin = row_;
  switch (pass_) {
    case PrefillPass::kProject:
      project(end, context);
      return end - begin;
    case PrefillPass::kOrder:
      order(context);
      return rows;
    case PrefillPass::kAttend:
      attend(end, context);
      return end - begin;
  }
  return 0;
}

void PrefillLane::project(int64_t end, const ForwardContext& context) {
  const bool is_pbs = layer_runs_pbs(layer_, context);
  // A PBS layer keeps its rows in natural order until they are attended; ordering fills the pages.
  const Tensor& slots = is_pbs ? own_slots_ : kv_slots_;
  const models::RowInput rows{.positions = positions_.rows(row_, end),
                              .slots = slots.rows(row_, end)};
  context.transformer.project(layer_, rows, buffers_.hidden.rows(row_, end), q_rows(row_, end),
                              is_pbs ? buffers_.plan.own : context.pool.layer(layer_),
                              context.scratch, context.stream);
  row_ = end;
  if (row_ < num_rows_) return;
  if (is_pbs) {
    pass_ = PrefillPass::kOrder;
  } else {
    begin_attend();
  }
}

PbsLayer PrefillLane::pbs_layer(const ForwardContext& context) const {
  const PrefillChunk& chunk = chunks_.front();
  kernels::PbsParams params = context.pbs.params;
  params.threshold = chunk.pbs_threshold;
  return {.options = context.pbs,
          .input = {.plan = buffers_.plan,
                    .pages = context.pool.layer(layer_),
                    .block_table = block_tables_.at(0),
                    .q = q_rows(0, num_rows_),
                    .job = pbs_job(chunk, context.pbs),
                    .params = params,
                    .scale = context.transformer.attention_scale()},
          .counts = buffers_.counts,
          .layer = layer_};
}

void PrefillLane::order(const ForwardContext& context) {
  pbs_layer(context).order(chunks_.front().pools_prefix, context.stream);
  begin_attend();
}

void PrefillLane::begin_attend() {
  pass_ = PrefillPass::kAttend;
  row_ = first_attended_row(layer_);
  if (row_ < num_rows_) return;
  ++layer_;  // the last layer of a chunk that draws no token: only its K/V were needed
  pass_ = PrefillPass::kProject;
  row_ = 0;
}

void PrefillLane::attend(int64_t end, const ForwardContext& context) {
  if (layer_runs_pbs(layer_, context)) {
    pbs_layer(context).attend(static_cast<int32_t>(row_ / kPbsBlock),
                              static_cast<int32_t>(ceil_div<int64_t>(end, kPbsBlock)),
                              context.stream);
  } else {
    attend_dense(end, context);
  }
  context.transformer.finish(layer_, buffers_.hidden.rows(row_, end), q_rows(row_, end),
                             context.scratch, context.stream);
  row_ = end;
  if (row_ < num_rows_) return;
  ++layer_;
  pass_ = PrefillPass::kProject;
  row_ = 0;
}

void PrefillLane::attend_dense(int64_t end, const ForwardContext& context) {
  std::vector<kernels::PrefillSegment> segments;
  int64_t chunk_row = 0;
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const int64_t chunk_rows = chunks_[i].end - chunks_[i].begin;
    const int64_t first = std::max(row_, chunk_row);
    const int64_t last = std::min(end, chunk_row + chunk_rows);
    if (first < last) {
      segments.push_back({.row_begin = static_cast<int32_t>(first - row_),
                          .num_rows = static_cast<int32_t>(last - first),
                          .position = static_cast<int32_t>(chunks_[i].begin + first - chunk_row),
                          .sequence = static_cast<int32_t>(i)});
    }
    chunk_row += chunk_rows;
  }
  const models::KvPages pages = context.pool.layer(layer_);
  kernels::prefill_attention({.out = q_rows(row_, end),
                              .q = q_rows(row_, end),
                              .k_pages = pages.k,
                              .v_pages = pages.v,
                              .block_tables = block_tables_,
                              .segments = segments,
                              .scale = context.transformer.attention_scale()},
                             context.stream);
}

std::vector<std::pair<PrefillChunk, int32_t>> PrefillLane::drawing_chunks() const {
  std::vector<std::pair<PrefillChunk, int32_t>> drawing;
  int64_t end = 0;
  for (const PrefillChunk& chunk : chunks_) {
    end += chunk.end - chunk.begin;
    if (chunk.draws_token) drawing.emplace_back(chunk, static_cast<int32_t>(end - 1));
  }
  return drawing;
}

// After the last layer only the rows that give logits are of use. A packed job is short; there all
// rows run.
int64_t PrefillLane::first_attended_row(int layer) const {
  if (layer + 1 < num_layers_ || chunks_.size() > 1) return 0;
  return chunks_.front().draws_token ? align_down<int64_t>(num_rows_ - 1, kPbsBlock) : num_rows_;
}

bool PrefillLane::layer_runs_pbs(int layer, const ForwardContext& context) const {
  return chunks_.front().pbs && layer >= context.pbs.dense_layers;
}

std::vector<bool> PrefillLane::pbs_layers(const ForwardContext& context) const {
  std::vector<bool> layers;
  for (int layer = 0; layer < num_layers_; ++layer) {
    layers.push_back(layer_runs_pbs(layer, context) && first_attended_row(layer) < num_rows_);
  }
  return layers;
}

std::vector<ChunkReport> PrefillLane::reports(const ForwardContext& context) const {
  const int64_t num_q_heads = context.transformer.config().num_q_heads;
  std::vector<ChunkReport> reports;
  for (const PrefillChunk& chunk : chunks_) {
    ChunkReport report{.id = chunk.id, .blocks = {}, .coverage = {}};
    report.coverage.num_heads = num_q_heads;
    for (int layer = 0; layer < num_layers_; ++layer) {
      const auto begin = static_cast<int32_t>(chunk.begin + first_attended_row(layer));
      const kernels::PbsSpan attended{begin, static_cast<int32_t>(chunk.end)};
      report.blocks.causal.push_back(begin < chunk.end ? num_causal_blocks(attended, num_q_heads)
                                                       : 0);
      report.coverage.num_rows.push_back(num_audited_rows(layer, context));
    }
    report.blocks.attended = report.blocks.causal;
    reports.push_back(std::move(report));
  }
  return reports;
}

int64_t PrefillLane::num_audited_rows(int layer, const ForwardContext& context) const {
  if (!layer_runs_pbs(layer, context) || context.pbs.audit == 0) return 0;
  const kernels::PbsJob job = pbs_job(chunks_.front(), context.pbs);
  return kernels::num_audited_rows(job, static_cast<int32_t>(first_attended_row(layer) / kPbsBlock),
                                   job.num_blocks(), context.pbs.params.dense_tail,
                                   context.pbs.audit);
}

}  // namespace pbserve::engine
