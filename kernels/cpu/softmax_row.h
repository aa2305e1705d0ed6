// One step of a running softmax (Milakov and Gimelshein, arXiv 1805.02867): a row of logits arrives
// in tiles; the row's maximum and sum so far are all that is kept of the earlier ones.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct SoftmaxState {
  float top = kMinusInfinity;
  float sum = 0;
};

// Replaces logits [0, count) by exp(logit - top) under the updated top and [count, columns) by
// zero; columns is a multiple of kLanes. Returns the factor that earlier exponentials have to take
// on. Columns past `count` leave no trace in any bit of the result.
inline float softmax_step(SoftmaxState& state, float* logits, int64_t count, int64_t columns) {
  for (int64_t j = count; j < columns; ++j) logits[j] = kMinusInfinity;
  Vec most = load(logits);
  for (int64_t j = kLanes; j < columns; j += kLanes) most = max(most, load(logits + j));
  const float tile_top = max(most);
  const float top = tile_top > state.top ? tile_top : state.top;
  Vec total = {};
  for (int64_t j = 0; j < columns; j += kLanes) {
    const Vec e = exp(load(logits + j) - top);
    store(logits + j, e);
    total += e;
  }
  const float rescale = top == state.top ? 1.f : exp(splat(state.top - top))[0];
  state.sum = state.sum * rescale + sum(total);
  state.top = top;
  return rescale;
}

}  // namespace pbserve::kernels::cpu
