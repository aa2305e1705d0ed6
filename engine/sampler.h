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

class Sampler {
 public:
  static Sampler take(const models::ModelConfig& config, int64_t num_slots,
                      kernels::Workspace& workspace);

  // Last token of every sequence slot.
  kernels::Tensor slot_tokens() const { return slot_tokens_; }  // [num_slots] int32

  // Row i of `hidden` [rows.size(), C] float32 gives the next token of rows[i].
  void draw(std::span<const DrawRow> rows, kernels::Tensor hidden, UploadArena& arena,
            const ForwardContext& context) const;

 private:
  kernels::Tensor slot_tokens_;  // [num_slots] int32
  kernels::Tensor logits_;       // [num_slots, V] float32
};

}  // namespace pbserve::engine
