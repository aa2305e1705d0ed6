#include "engine/prefill_lane.h"

#include <algorithm>

#include "engine/batch_builder.h"
#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/pbs_force.h"

namespace pbserve::engine {

using kernels::align_down;
using kernels::ceil_div;
using kernels::DType;
using kernels::kPbsBlock;
using kernels::Tensor;

namespace {

kernels::PbsSpan pbs_span(const PrefillSpan& span) {
  return {static_cast<int32_t>(span.begin), static_cast<int32_t>(span.end)};
}

kernels::PbsParams pbs_params(const PrefillSpan& span, const ForwardContext& context) {
  kernels::PbsParams params = context.pbs.params;
  params.threshold = span.pbs_threshold;
  return params;
}

}  // namespace

PrefillLane::Buffers PrefillLane::Buffers::take(const models::ModelConfig& config, DType dtype,
                                                int64_t rows_max, kernels::Workspace& workspace) {
  return {.hidden = workspace.take(DType::kF32, {rows_max, config.hidden_size}),
          .q = workspace.take(dtype, {rows_max, config.num_q_heads, config.head_dim}),
          .selected = workspace.take(DType::kI64, {config.num_layers + 1})};
}

PrefillLane::PrefillLane(const Buffers& buffers, UploadArena arena)
    : buffers_(buffers),
      arena_(std::move(arena)),
      num_layers_(static_cast<int>(buffers.selected.dim(0)) - 1) {}

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

void PrefillLane::load(const std::vector<PrefillSpan>& spans, const SequenceMap& sequences,
                       const ForwardContext& context) {
  check(idle(), "load into a busy lane");
  check(std::ranges::none_of(spans, &PrefillSpan::pbs) || spans.size() == 1,
        "PBS spans run one at a time");
  const kernels::Stream& stream = context.stream;
  const PrefillBatch batch = build_prefill_batch(spans, sequences, context.pages_max);
  spans_ = spans;
  num_rows_ = static_cast<int64_t>(batch.ids.size());
  check(num_rows_ <= buffers_.hidden.dim(0), "more rows than the lane holds");
  arena_.reset();
  const Tensor ids = arena_.put(batch.ids);
  positions_ = arena_.put(batch.positions);
  kv_slots_ = arena_.put(batch.kv_slots);
  block_tables_ = arena_.put(std::span<const int32_t>(batch.block_tables),
                             {static_cast<int64_t>(spans.size()), context.pages_max});
  arena_.upload(stream);
  kernels::fill_zero(buffers_.selected.data, num_layers_ * sizeof(int64_t), stream);
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
  const models::RowInput rows{.positions = positions_.rows(row_, end),
                              .slots = kv_slots_.rows(row_, end)};
  context.transformer.project(layer_, rows, buffers_.hidden.rows(row_, end), q_rows(row_, end),
                              context.pool.layer(layer_), context.scratch, context.stream);
  row_ = end;
  if (row_ < num_rows_) return;
  const bool attends = first_attended_row(layer_) < num_rows_;
  if (attends && layer_runs_pbs(layer_, context)) {
    pass_ = PrefillPass::kOrder;
  } else {
    begin_attend();
  }
}

void PrefillLane::order(const ForwardContext& context) {
  const models::KvPages pages = context.pool.layer(layer_);
  kernels::pbs_order({.plan = context.pbs_plan,
                      .q = q_rows(0, num_rows_),
                      .k_pages = pages.k,
                      .v_pages = pages.v,
                      .block_table = block_tables_.at(0),
                      .span = pbs_span(spans_.front()),
                      .params = pbs_params(spans_.front(), context),
                      .scale = context.transformer.attention_scale()},
                     context.stream);
  begin_attend();
}

void PrefillLane::begin_attend() {
  pass_ = PrefillPass::kAttend;
  row_ = first_attended_row(layer_);
  if (row_ < num_rows_) return;
  ++layer_;  // the last layer of a span that draws no token: only its K/V were needed
  pass_ = PrefillPass::kProject;
  row_ = 0;
}

void PrefillLane::attend(int64_t end, const ForwardContext& context) {
  if (layer_runs_pbs(layer_, context)) {
    attend_pbs(end, context);
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

void PrefillLane::attend_pbs(int64_t end, const ForwardContext& context) {
  const models::KvPages pages = context.pool.layer(layer_);
  const kernels::PbsParams params = pbs_params(spans_.front(), context);
  const float scale = context.transformer.attention_scale();
  const auto block_begin = static_cast<int32_t>(row_ / kPbsBlock);
  const auto block_end = static_cast<int32_t>(ceil_div<int64_t>(end, kPbsBlock));
  const float forced = context.pbs.force_density;
  const Tensor counted = buffers_.selected.rows(layer_, layer_ + 1);
  const Tensor not_counted = buffers_.selected.rows(num_layers_, num_layers_ + 1);
  kernels::pbs_select({.plan = context.pbs_plan,
                       .q = q_rows(0, num_rows_),
                       .span = pbs_span(spans_.front()),
                       .block_begin = block_begin,
                       .block_end = block_end,
                       .num_selected = forced > 0 ? not_counted : counted,
                       .params = params,
                       .scale = scale},
                      context.stream);
  if (forced > 0) {
    kernels::pbs_force_mask({.plan = context.pbs_plan,
                             .span = pbs_span(spans_.front()),
                             .block_begin = block_begin,
                             .block_end = block_end,
                             .num_selected = counted,
                             .segment = params.segment,
                             .density = forced},
                            context.stream);
  }
  kernels::pbs_prefill({.out = q_rows(0, num_rows_),
                        .plan = context.pbs_plan,
                        .q = q_rows(0, num_rows_),
                        .k_pages = pages.k,
                        .v_pages = pages.v,
                        .block_table = block_tables_.at(0),
                        .span = pbs_span(spans_.front()),
                        .block_begin = block_begin,
                        .block_end = block_end,
                        .segment = params.segment,
                        .scale = scale},
                       context.stream);
}

void PrefillLane::attend_dense(int64_t end, const ForwardContext& context) {
  std::vector<kernels::PrefillSegment> segments;
  int64_t span_row = 0;
  for (size_t i = 0; i < spans_.size(); ++i) {
    const int64_t span_rows = spans_[i].end - spans_[i].begin;
    const int64_t first = std::max(row_, span_row);
    const int64_t last = std::min(end, span_row + span_rows);
    if (first < last) {
      segments.push_back({.row_begin = static_cast<int32_t>(first - row_),
                          .num_rows = static_cast<int32_t>(last - first),
                          .position = static_cast<int32_t>(spans_[i].begin + first - span_row),
                          .sequence = static_cast<int32_t>(i)});
    }
    span_row += span_rows;
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

std::vector<std::pair<PrefillSpan, int32_t>> PrefillLane::drawing_spans() const {
  std::vector<std::pair<PrefillSpan, int32_t>> drawing;
  int64_t end = 0;
  for (const PrefillSpan& span : spans_) {
    end += span.end - span.begin;
    if (span.draws_token) drawing.emplace_back(span, static_cast<int32_t>(end - 1));
  }
  return drawing;
}

// After the last layer only the rows that give logits are of use. A packed job is short; there all
// rows run.
int64_t PrefillLane::first_attended_row(int layer) const {
  if (layer + 1 < num_layers_ || spans_.size() > 1) return 0;
  return spans_.front().draws_token ? align_down<int64_t>(num_rows_ - 1, kPbsBlock) : num_rows_;
}

bool PrefillLane::layer_runs_pbs(int layer, const ForwardContext& context) const {
  return spans_.front().pbs && layer >= context.pbs.dense_layers;
}

std::vector<bool> PrefillLane::pbs_layers(const ForwardContext& context) const {
  std::vector<bool> layers;
  for (int layer = 0; layer < num_layers_; ++layer) {
    layers.push_back(layer_runs_pbs(layer, context) && first_attended_row(layer) < num_rows_);
  }
  return layers;
}

std::vector<SpanDensity> PrefillLane::causal_blocks(int64_t num_q_heads) const {
  std::vector<SpanDensity> densities;
  for (const PrefillSpan& span : spans_) {
    BlockCounts blocks;
    for (int layer = 0; layer < num_layers_; ++layer) {
      const auto begin = static_cast<int32_t>(span.begin + first_attended_row(layer));
      const kernels::PbsSpan attended{begin, static_cast<int32_t>(span.end)};
      blocks.causal.push_back(begin < span.end ? num_causal_blocks(attended, num_q_heads) : 0);
    }
    blocks.attended = blocks.causal;
    densities.push_back({span.id, std::move(blocks)});
  }
  return densities;
}

}  // namespace pbserve::engine
