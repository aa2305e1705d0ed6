#include "tests/reference/sample_ref.h"

#include <algorithm>
#include <cmath>

namespace pbserve::reference {
namespace {

bool is_banned(const SampleRefParams& params, int32_t id) {
  return std::find(params.banned.begin(), params.banned.end(), id) != params.banned.end();
}

// Ids that may be drawn, by (logit descending, id ascending).
std::vector<int32_t> ranked_ids(std::span<const float> logits, const SampleRefParams& params) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
    const float logit = logits[static_cast<size_t>(id)];
    if (!std::isnan(logit) && logit != -HUGE_VALF && !is_banned(params, id)) ids.push_back(id);
  }
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  return ids;
}

void normalise(std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  for (double& value : values) value /= sum;
}

// The probabilities of the ranked ids, cut by top-p and then by min-p.
std::vector<double> filtered(std::vector<double> p, const SampleRefParams& params) {
  normalise(p);
  double sum = 0;
  size_t kept = 0;
  while (kept < p.size() && (kept == 0 || sum < params.top_p)) sum += p[kept++];
  p.resize(kept);
  while (p.back() < params.min_p * p.front()) p.pop_back();
  normalise(p);
  return p;
}

}  // namespace

std::vector<double> sample_ref(std::span<const float> logits, const SampleRefParams& params) {
  std::vector<double> result(logits.size(), 0);
  std::vector<int32_t> ids = ranked_ids(logits, params);
  if (ids.empty()) return result;
  if (params.temperature == 0) {
    result[static_cast<size_t>(ids[0])] = 1;
    return result;
  }
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(ids.size())) {
    ids.resize(static_cast<size_t>(params.top_k));
  }
  const double top = logits[static_cast<size_t>(ids[0])];
  std::vector<double> p;
  for (const int32_t id : ids) {
    const double logit = logits[static_cast<size_t>(id)];
    p.push_back(logit == top ? 1 : std::exp((logit - top) / params.temperature));
  }
  p = filtered(p, params);
  for (size_t i = 0; i < p.size(); ++i) result[static_cast<size_t>(ids[i])] = p[i];
  return result;
}

int32_t draw_ref(std::span<const double> probabilities, double point) {
  double sum = 0;
  int32_t last = -1;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] == 0) continue;
    last = static_cast<int32_t>(i);
    sum += probabilities[i];
    if (sum > point) return last;
  }
  return last;
}

}  // namespace pbserve::reference
