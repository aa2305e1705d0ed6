#include "tests/reference/ops_ref.h"

#include <cmath>

namespace pbserve::reference {

Values linear_ref(const Values& x, const Values& w, const Values& bias, int64_t num_in) {
  const size_t depth = static_cast<size_t>(num_in);
  const size_t num_rows = x.size() / depth;
  const size_t num_out = w.size() / depth;
  Values y(num_rows * num_out);
  for (size_t t = 0; t < num_rows; ++t) {
    for (size_t n = 0; n < num_out; ++n) {
      double sum = bias.empty() ? 0 : bias[n];
      for (size_t k = 0; k < depth; ++k) sum += x[t * depth + k] * w[n * depth + k];
      y[t * num_out + n] = sum;
    }
  }
  return y;
}

Values rms_norm_ref(const Values& rows, const Values& weight, double eps) {
  const size_t width = weight.size();
  Values y(rows.size());
  for (size_t begin = 0; begin < rows.size(); begin += width) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += rows[begin + i] * rows[begin + i];
    const double norm = std::sqrt(squares / static_cast<double>(width) + eps);
    for (size_t i = 0; i < width; ++i) y[begin + i] = rows[begin + i] / norm * weight[i];
  }
  return y;
}

Values silu_mul_ref(const Values& gate_up, int64_t width) {
  const size_t f = static_cast<size_t>(width);
  Values y;
  for (size_t row = 0; row < gate_up.size(); row += 2 * f) {
    for (size_t i = 0; i < f; ++i) {
      const double gate = gate_up[row + i];
      y.push_back(gate / (1 + std::exp(-gate)) * gate_up[row + f + i]);
    }
  }
  return y;
}

Values rope_ref(std::span<const double> head, std::span<const float> inv_freq, int64_t position,
                double scale) {
  const size_t half = inv_freq.size();
  Values y(head.size());
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<float>(position) * inv_freq[i];
    const double cos = std::cos(angle) * scale;
    const double sin = std::sin(angle) * scale;
    y[i] = head[i] * cos - head[half + i] * sin;
    y[half + i] = head[half + i] * cos + head[i] * sin;
  }
  return y;
}

}  // namespace pbserve::reference
