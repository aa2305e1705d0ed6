#include "tests/reference/attention_ref.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pbserve::reference {

double dot(std::span<const double> a, std::span<const double> b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

void softmax(std::vector<double>& logits) {
  if (logits.empty()) return;
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& x : logits) sum += x = std::exp(x - top);
  for (double& x : logits) x /= sum;
}

std::vector<double> attend_ref(std::span<const double> q, const Heads& k, const Heads& v,
                               int64_t kv_head, std::span<const int64_t> positions, double scale) {
  std::vector<double> weights;
  for (int64_t position : positions) weights.push_back(scale * dot(q, k.at(position, kv_head)));
  softmax(weights);
  std::vector<double> out(v.head_dim);
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto value = v.at(positions[i], kv_head);
    for (int64_t d = 0; d < v.head_dim; ++d) out[d] += weights[i] * value[d];
  }
  return out;
}

Heads attention_ref(const Heads& q, const Heads& k, const Heads& v, int64_t first_position,
                    double scale) {
  Heads out(q.num_tokens, q.num_heads, q.head_dim);
  const int64_t group = q.num_heads / k.num_heads;
  for (int64_t row = 0; row < q.num_tokens; ++row) {
    std::vector<int64_t> positions(first_position + row + 1);
    std::iota(positions.begin(), positions.end(), 0);
    for (int64_t h = 0; h < q.num_heads; ++h) {
      const auto result = attend_ref(q.at(row, h), k, v, h / group, positions, scale);
      std::copy(result.begin(), result.end(), out.at(row, h).begin());
    }
  }
  return out;
}

}  // namespace pbserve::reference
