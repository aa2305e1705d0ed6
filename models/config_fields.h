// The parts of config.json that all architectures share.
#pragma once

#include "models/config.h"
#include "models/json_reader.h"

namespace pbserve::models {

// Sizes, norm, activation, embeddings; everything but heads' size, rope and what families add.
void read_geometry(JsonReader& json, ModelConfig& config);

// Both spellings: `rope_scaling` beside `rope_theta`, and `rope_parameters`.
// REQUIRES: read_geometry has run.
void read_rope(JsonReader& json, ModelConfig& config);

// Refuses sliding-window attention. `used_unless_disabled`: whether a `sliding_window` without
// `use_sliding_window` means that the window is on.
struct SlidingWindowRule {
  bool used_unless_disabled;
};
void refuse_sliding_window(JsonReader& json, const ModelConfig& config, SlidingWindowRule rule);

// Head size in [64, 256], a multiple of 16: what the attention kernels are built for.
inline constexpr IntRange kHeadDimRange{64, 256};

}  // namespace pbserve::models
