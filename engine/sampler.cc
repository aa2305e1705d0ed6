#include "engine/sampler.h"

#include "kernels/ops/sample.h"

namespace pbserve::engine {

using kernels::DType;
using kernels::Tensor;

Sampler Sampler::take(const models::ModelConfig& config, int64_t num_slots,
                      kernels::Workspace& workspace) {
  Sampler sampler;
  sampler.slot_tokens_ = workspace.take(DType::kI32, {num_slots});
  sampler.logits_ = workspace.take(DType::kF32, {num_slots, config.vocab_size});
  return sampler;
}

void Sampler::draw(std::span<const DrawRow> rows, Tensor hidden, UploadArena& arena,
                   const ForwardContext& context) const {
  if (rows.empty()) return;
  const auto num_rows = static_cast<int64_t>(rows.size());
  const Tensor logits = logits_.rows(0, num_rows);
  context.transformer.logits(logits, hidden, context.scratch, context.stream);
  const SampleBatch batch = build_sample_batch(rows);
  const kernels::Stream& stream = context.stream;
  kernels::sample({.token = slot_tokens_,
                   .index = arena.put(batch.sequence_slots, stream),
                   .logits = logits,
                   .temperature = arena.put(batch.temperature, stream),
                   .top_k = arena.put(batch.top_k, stream),
                   .top_p = arena.put(batch.top_p, stream),
                   .min_p = arena.put(batch.min_p, stream),
                   .seed = arena.put(batch.seeds, stream),
                   .position = arena.put(batch.positions, stream),
                   .banned = arena.put(std::span<const int32_t>(batch.banned),
                                       {num_rows, kernels::kMaxBannedIds}, stream)},
                  stream);
}

}  // namespace pbserve::engine
