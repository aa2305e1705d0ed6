// One row at a time in two passes: add and sum the squares, then scale. The sum runs in a fixed
// order that depends on the width alone, so a row's result does not depend on its company.
#include "kernels/ops/norm.h"

#include <cmath>

#include "kernels/cpu/row_blocks.h"
#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {
namespace {

// residual += x (if any); returns the sum of squares.
template <class T>
float add_and_square(float* residual, const T* x, int64_t width) {
  Vec squares = {};
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, width - i);
    Vec value = load(residual + i, count);
    if (x != nullptr) {
      value += load(x + i, count);
      store(residual + i, value, count);
    }
    squares += value * value;
  }
  return sum(squares);
}

template <class T>
void norm_rows(const RmsNormArgs& args, ThreadPool& pool) {
  const int64_t width = args.residual.dim(1);
  const float* weight = args.weight.as<float>();
  const T* x = args.x.empty() ? nullptr : args.x.as<T>();
  T* y = args.y.empty() ? nullptr : args.y.as<T>();
  float* residual = args.residual.as<float>();
  for_each_row(args.residual.dim(0), width, pool, [&](int64_t row) {
    float* values = residual + row * width;
    const float squares = add_and_square(values, x == nullptr ? x : x + row * width, width);
    if (y == nullptr) return;
    const float scale = 1.f / std::sqrt(squares / static_cast<float>(width) + args.eps);
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, width - i);
      store(y + row * width + i, load(values + i, count) * scale * load(weight + i, count), count);
    }
  });
}

}  // namespace

void rms_norm(const RmsNormArgs& args, ThreadPool& pool) {
  const DType dtype = args.y.empty() ? args.x.dtype : args.y.dtype;
  dtype == DType::kBF16 ? norm_rows<BF16>(args, pool) : norm_rows<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
