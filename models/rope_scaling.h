// Rotary frequencies of every supported rope type, as `transformers` computes them.
#pragma once

#include <vector>

#include "models/config.h"

namespace pbserve::models {

struct RopeTable {
  std::vector<float> inv_freq;  // [D / 2], radians per position
  float scale = 1.0f;           // multiplies cos and sin (yarn's attention factor)
};

RopeTable make_rope_table(const RopeConfig& rope, int64_t head_dim);

}  // namespace pbserve::models
