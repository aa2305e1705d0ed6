// Sampler: hidden rows of some sequences -> their next tokens, written where the next step's
// embedding reads them, so that a step can be launched before the one before it was read back.
#pragma once

#include <cstdint>
#include <span>

#include "engine/batch_builder.h"
#include "engine/prefill_lane.h"
#include "engine/upload_arena.h"
#include "kernels/core/workspace.h"

namespace pbserve::engine {

// A SampleBatch on the device.
struct SampleInput {
  kernels::Tensor sequence_slots, temperature, top_k, top_p, min_p, seeds, positions;  // [B]
  kernels::Tensor banned;                                                              // [B, max]

  static SampleInput put(const SampleBatch& batch, UploadArena& arena);
};

class Sampler {
 public:
  // For batches of up to num_slots rows.
  static Sampler take(const models::ModelConfig& config, int64_t num_slots,
                      kernels::Workspace& workspace);

  // Last token of every sequence slot [0, num_slots), then of the padding rows of a batch.
  kernels::Tensor slot_tokens() const { return slot_tokens_; }  // [2 num_slots] int32

  // Row i of `hidden` [B, C] float32 gives the next token of row i of the input.
  void draw(const SampleInput& input, kernels::Tensor hidden, const ForwardContext& context) const;

 private:
  kernels::Tensor slot_tokens_;  // [2 num_slots] int32
  kernels::Tensor logits_;       // [num_slots, V] float32
};

}  // namespace pbserve::engine
