// The distribution that sampling draws from, by sorting everything.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pbserve::reference {

struct SampleRefParams {
  double temperature = 1;
  int64_t top_k = 0;  // 0 = all
  double top_p = 1;
  double min_p = 0;
  std::vector<int32_t> banned = {};
};

// [V] probabilities of the next token; they add up to 1. Greedy puts all on one id. All zero if
// there is no id to draw.
std::vector<double> sample_ref(std::span<const float> logits, const SampleRefParams& params);

// The id at which the running sum of `probabilities` passes `point` in [0, 1).
int32_t draw_ref(std::span<const double> probabilities, double point);

}  // namespace pbserve::reference
