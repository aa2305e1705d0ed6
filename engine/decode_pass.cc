#include "engine/decode_pass.h"

#include "engine/batch_builder.h"
#include "kernels/core/check.h"
#include "kernels/ops/attention.h"

namespace pbserve::engine {

using kernels::DType;
using kernels::StepGraph;
using kernels::Tensor;

std::vector<int64_t> decode_buckets(int64_t num_slots) {
  std::vector<int64_t> buckets;
  for (int64_t size = 1; size < num_slots; size *= 2) {
    buckets.push_back(size);
    const int64_t half_more = size * 3 / 2;
    if (size >= 16 && half_more < num_slots) buckets.push_back(half_more);
  }
  buckets.push_back(num_slots);
  return buckets;
}

DecodePass::Buffers DecodePass::Buffers::take(const models::ModelConfig& config, DType dtype,
                                              int64_t num_slots, kernels::Device device,
                                              kernels::Workspace& workspace) {
  const int64_t scratch_bytes = kernels::decode_scratch_bytes(
      device,
      {.num_rows_max = num_slots, .num_q_heads = config.num_q_heads, .head_dim = config.head_dim});
  return {.hidden = workspace.take(DType::kF32, {num_slots, config.hidden_size}),
          .q = workspace.take(dtype, {num_slots, config.num_q_heads, config.head_dim}),
          .scratch = workspace.take(DType::kU8, {scratch_bytes})};
}

void DecodePass::warm_up(const Sampler& sampler, UploadArena& arena,
                         const ForwardContext& context) const {
  for (const int64_t num_rows : decode_buckets(buffers_.hidden.dim(0))) {
    run_operations(put_padding(num_rows, arena, context), sampler, context);
  }
  context.stream.synchronize();
}

absl::Status DecodePass::record(const Sampler& sampler, UploadArena& arena,
                                const ForwardContext& context) {
  for (const int64_t num_rows : decode_buckets(buffers_.hidden.dim(0))) {
    const Input input = put_padding(num_rows, arena, context);
    ASSIGN_OR_RETURN(StepGraph graph, StepGraph::record(context.stream, [&] {
                       run_operations(input, sampler, context);
                     }));
    graphs_.emplace(num_rows, std::move(graph));
  }
  context.stream.synchronize();
  return absl::OkStatus();
}

void DecodePass::run(std::span<const DecodeRow> rows, const SequenceMap& sequences,
                     const Sampler& sampler, UploadArena& arena,
                     const ForwardContext& context) const {
  if (rows.empty()) return;
  check(static_cast<int64_t>(rows.size()) <= buffers_.hidden.dim(0), "more rows than slots");
  const auto graph = graphs_.lower_bound(static_cast<int64_t>(rows.size()));
  const auto num_rows = graph == graphs_.end() ? static_cast<int64_t>(rows.size()) : graph->first;
  const Input input = put(rows, sequences, num_rows, arena, context);
  arena.upload(context.stream);
  if (graph == graphs_.end()) {
    run_operations(input, sampler, context);
  } else {
    graph->second.launch(context.stream);
  }
}

DecodePass::Input DecodePass::put_padding(int64_t num_rows, UploadArena& arena,
                                          const ForwardContext& context) const {
  arena.reset();
  const Input input = put({}, {}, num_rows, arena, context);
  arena.upload(context.stream);
  return input;
}

// The order and the sizes are all that decides where an array lies: those of a graph never change.
DecodePass::Input DecodePass::put(std::span<const DecodeRow> rows, const SequenceMap& sequences,
                                  int64_t num_rows, UploadArena& arena,
                                  const ForwardContext& context) const {
  const auto padding_slot = static_cast<int32_t>(buffers_.hidden.dim(0));
  DecodeBatch batch = build_decode_batch(rows, sequences, context.pages_max);
  pad(batch, num_rows, padding_slot);
  std::vector<DrawRow> draws;
  for (const DecodeRow& row : rows) draws.push_back({sequences.at(row.id).get(), row.position + 1});
  SampleBatch sample = build_sample_batch(draws);
  pad(sample, num_rows, padding_slot);
  return {.rows = {.positions = arena.put(batch.positions), .slots = arena.put(batch.kv_slots)},
          .sequence_slots = arena.put(batch.sequence_slots),
          .context_lens = arena.put(batch.context_lens),
          .block_tables = arena.put(std::span<const int32_t>(batch.block_tables),
                                    {num_rows, context.pages_max}),
          .sample = SampleInput::put(sample, arena)};
}

void DecodePass::run_operations(const Input& input, const Sampler& sampler,
                                const ForwardContext& context) const {
  const models::Transformer& transformer = context.transformer;
  const kernels::Stream& stream = context.stream;
  const int64_t num_rows = input.context_lens.dim(0);
  const Tensor hidden = buffers_.hidden.rows(0, num_rows);
  const Tensor q = buffers_.q.rows(0, num_rows);
  transformer.embed(hidden, sampler.slot_tokens(), input.sequence_slots, stream);
  for (int layer = 0; layer < transformer.config().num_layers; ++layer) {
    const models::KvPages pages = context.pool.layer(layer);
    transformer.project(layer, input.rows, hidden, q, pages, context.scratch, stream);
    kernels::decode_attention({.out = q,
                               .q = q,
                               .k_pages = pages.k,
                               .v_pages = pages.v,
                               .block_tables = input.block_tables,
                               .context_lens = input.context_lens,
                               .scratch = buffers_.scratch,
                               .scale = transformer.attention_scale()},
                              stream);
    transformer.finish(layer, hidden, q, context.scratch, stream);
  }
  sampler.draw(input.sample, hidden, context);
}

}  // namespace pbserve::engine
