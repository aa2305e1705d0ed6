#include "tests/reference/pbs_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace pbserve::reference {
namespace {

using kernels::PbsParams;
using kernels::PbsSelector;
using kernels::PbsSpan;

constexpr int64_t kBlock = kernels::kPbsBlock;

// Adds the probabilities of the span's last queries to the scores of its complete segments' keys.
void score_span(const PbsProblem& p, const PbsSpan& span, KeyScores& scores) {
  const int64_t end = span.end / p.params.segment * p.params.segment;
  const int64_t num_proxies = std::min<int64_t>(kBlock, span.num_rows());
  for (int64_t head = 0; head < p.q.num_heads; ++head) {
    for (int64_t t = span.end - num_proxies; t < span.end && end > span.begin; ++t) {
      std::vector<double> probabilities;
      for (int64_t key = span.begin; key < end; ++key) {
        probabilities.push_back(p.scale *
                                dot(p.q.at(t - p.job.begin, head), p.k.at(key, head / p.group())));
      }
      softmax(probabilities);
      for (int64_t key = span.begin; key < end; ++key) {
        scores[head / p.group()][key - p.job.begin] +=
            probabilities[key - span.begin] / double(num_proxies * p.group());
      }
    }
  }
}

}  // namespace

int64_t PbsProblem::num_candidates(int64_t block) const {
  return prompt_block(block) * kBlock / params.segment * params.segment / kBlock;
}

bool PbsProblem::is_dense_tail(int64_t block) const {
  const int64_t num_blocks = (job.prompt_len + kBlock - 1) / kBlock;
  return prompt_block(block) >= num_blocks - params.dense_tail;
}

KeyScores key_scores_ref(const PbsProblem& p) {
  KeyScores scores(p.k.num_heads, std::vector<double>(p.num_ordered()));
  for (int32_t i = 0; i < num_spans(p.job); ++i) score_span(p, span_of(p.job, i), scores);
  if (p.job.begin == 0 && p.params.sink > 0) {
    for (auto& of_head : scores) {
      if (!of_head.empty()) of_head[0] = std::numeric_limits<double>::infinity();
    }
  }
  return scores;
}

Order order_ref(const PbsProblem& p, const KeyScores& scores) {
  Order order = p.earlier;
  order.resize(p.k.num_heads);
  for (size_t h = 0; h < order.size(); ++h) {
    order[h].resize(p.job.begin + p.num_ordered());
    std::iota(order[h].begin() + p.job.begin, order[h].end(), p.job.begin);
    if (p.params.order == kernels::PbsOrder::kNatural) continue;
    for (auto begin = order[h].begin() + p.job.begin; begin != order[h].end();
         begin += p.params.segment) {
      std::stable_sort(begin, begin + p.params.segment, [&](int64_t a, int64_t b) {
        return scores[h][a - p.job.begin] > scores[h][b - p.job.begin];
      });
    }
  }
  return order;
}

std::vector<bool> always_taken_ref(const PbsParams& params, int64_t count) {
  std::vector<bool> always(count);
  const int64_t local_blocks = params.local * params.segment / kBlock;
  for (int64_t j = 0; j < count; ++j) always[j] = j < params.sink || j >= count - local_blocks;
  return always;
}

std::vector<bool> choose_ref(const std::vector<double>& given, const PbsParams& params) {
  std::vector<double> weights = given;
  std::vector<bool> taken = always_taken_ref(params, static_cast<int64_t>(given.size()));
  const double tau = double{params.threshold};
  if (params.selector == PbsSelector::kErrorBound) {
    const double least = (1 - tau) / std::sqrt(static_cast<double>(weights.size()));
    for (size_t j = 0; j < weights.size(); ++j) {
      taken[j] = taken[j] || tau >= 1 || weights[j] >= least;
    }
    return taken;
  }
  double budget = 1;
  if (params.sink_free) {
    for (size_t j = 0; j < weights.size(); ++j) weights[j] = taken[j] ? 0 : weights[j];
    budget = std::accumulate(weights.begin(), weights.end(), 0.0);
  }
  std::vector<size_t> heaviest(weights.size());
  std::iota(heaviest.begin(), heaviest.end(), 0);
  std::stable_sort(heaviest.begin(), heaviest.end(),
                   [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  double cumulative = 0;
  for (size_t j : heaviest) {
    if (params.selector == PbsSelector::kTopP) {
      if (tau < 1 && cumulative >= tau * budget) break;
    } else if (weights[j] == 0 || weights[j] < tau * weights[heaviest[0]]) {
      break;
    }
    taken[j] = true;
    cumulative += weights[j];
  }
  return taken;
}

Taken select_ref(const PbsProblem& p, const Weights& weights) {
  Taken taken(p.q.num_heads);
  for (int64_t head = 0; head < p.q.num_heads; ++head) {
    for (int64_t block = 0; block < p.num_query_blocks(); ++block) {
      const auto& of_block = weights[head][block];
      taken[head].push_back(p.is_dense_tail(block) ? std::vector<bool>(of_block.size(), true)
                                                   : choose_ref(of_block, p.params));
    }
  }
  return taken;
}

std::vector<int64_t> attended_ref(const PbsProblem& p, const Order& order, const Taken& taken,
                                  int64_t head, int64_t row) {
  std::vector<int64_t> positions;
  const auto& bits = taken[head][row / kBlock];
  for (size_t j = 0; j < bits.size(); ++j) {
    if (!bits[j]) continue;
    const auto block = order[head / p.group()].begin() + static_cast<int64_t>(j) * kBlock;
    positions.insert(positions.end(), block, block + kBlock);
  }
  const int64_t position = p.job.begin + row;
  for (int64_t t = position / p.params.segment * p.params.segment; t <= position; ++t) {
    positions.push_back(t);
  }
  return positions;
}

std::vector<double> pbs_row_ref(const PbsProblem& p, const Order& order, const Taken& taken,
                                int64_t head, int64_t row) {
  return attend_ref(p.q.at(row, head), p.k, p.v, head / p.group(),
                    attended_ref(p, order, taken, head, row), p.scale);
}

double coverage_ref(const PbsProblem& p, const Order& order, const Taken& taken, int64_t head,
                    int64_t row) {
  std::vector<double> mass(p.job.begin + row + 1);
  for (size_t t = 0; t < mass.size(); ++t) {
    mass[t] = p.scale * dot(p.q.at(row, head), p.k.at(static_cast<int64_t>(t), head / p.group()));
  }
  softmax(mass);
  double covered = 0;
  for (const int64_t t : attended_ref(p, order, taken, head, row)) covered += mass[t];
  return covered;
}

}  // namespace pbserve::reference
