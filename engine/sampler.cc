#include "engine/sampler.h"

#include "kernels/ops/sample.h"

namespace pbserve::engine {

using kernels::DType;
using kernels::Tensor;

SampleInput SampleInput::put(const SampleBatch& batch, UploadArena& arena) {
  const auto num_rows = static_cast<int64_t>(batch.sequence_slots.size());
  return {.sequence_slots = arena.put(batch.sequence_slots),
          .temperature = arena.put(batch.temperature),
          .top_k = arena.put(batch.top_k),
          .top_p = arena.put(batch.top_p),
          .min_p = arena.put(batch.min_p),
          .seeds = arena.put(batch.seeds),
          .positions = arena.put(batch.positions),
          .banned = arena.put(std::span<const int32_t>(batch.banned),
                              {num_rows, kernels::kMaxBannedIds})};
}

Sampler Sampler::take(const models::ModelConfig& config, int64_t num_slots,
                      kernels::Workspace& workspace) {
  Sampler sampler;
  sampler.slot_tokens_ = workspace.take(DType::kI32, {2 * num_slots});
  sampler.logits_ = workspace.take(DType::kF32, {num_slots, config.vocab_size});
  return sampler;
}

void Sampler::draw(const SampleInput& input, Tensor hidden, const ForwardContext& context) const {
  const Tensor logits = logits_.rows(0, hidden.dim(0));
  context.transformer.logits(logits, hidden, context.scratch, context.stream);
  kernels::sample({.token = slot_tokens_,
                   .index = input.sequence_slots,
                   .logits = logits,
                   .temperature = input.temperature,
                   .top_k = input.top_k,
                   .top_p = input.top_p,
                   .min_p = input.min_p,
                   .seed = input.seeds,
                   .position = input.positions,
                   .banned = input.banned},
                  context.stream);
}

}  // namespace pbserve::engine
