#include "tests/reference/pbs_ref.h"

#include <algorithm>
#include <numeric>

namespace pbserve::reference {
namespace {

constexpr int64_t kBlock = kernels::kPbsBlock;

// Mean of the rows of `heads` named by `tokens`.
std::vector<double> mean_of(const Heads& heads, int64_t head, const std::vector<int64_t>& tokens) {
  std::vector<double> mean(heads.head_dim);
  for (int64_t token : tokens) {
    const auto row = heads.at(token, head);
    for (int64_t d = 0; d < heads.head_dim; ++d) mean[d] += row[d] / double(tokens.size());
  }
  return mean;
}

std::vector<int64_t> rows_of_block(const PbsProblem& p, int64_t block) {
  std::vector<int64_t> rows(std::min(kBlock, p.q.num_tokens - block * kBlock));
  std::iota(rows.begin(), rows.end(), block * kBlock);
  return rows;
}

std::vector<double> mean_weights(const PbsProblem& p, const std::vector<int64_t>& order,
                                 int64_t head, int64_t block) {
  const auto pooled_q = mean_of(p.q, head, rows_of_block(p, block));
  std::vector<double> weights;
  for (int64_t j = 0; j < p.num_candidates(block); ++j) {
    const std::vector<int64_t> keys(order.begin() + j * kBlock, order.begin() + (j + 1) * kBlock);
    weights.push_back(p.scale * dot(pooled_q, mean_of(p.k, head / p.group(), keys)));
  }
  softmax(weights);
  return weights;
}

std::vector<double> antidiagonal_weights(const PbsProblem& p, const std::vector<int64_t>& order,
                                         int64_t head, int64_t block) {
  const int64_t stride = p.params.stride;
  const auto rows = rows_of_block(p, block);
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  const int64_t num_query_groups = (num_rows + stride - 1) / stride;
  const int64_t num_key_groups = p.num_candidates(block) * kBlock / stride;
  std::vector<double> weights(p.num_candidates(block));
  for (int64_t m = 0; m < num_query_groups; ++m) {
    const int64_t num_tokens = std::min(stride, num_rows - m * stride);
    std::vector<double> scores(num_key_groups);
    for (int64_t n = 0; n < num_key_groups; ++n) {
      for (int64_t r = 0; r < stride; ++r) {
        if (stride - 1 - r >= num_tokens) continue;
        const int64_t row = rows[m * stride + stride - 1 - r];
        const int64_t key = order[n * stride + r];
        scores[n] += dot(p.q.at(row, head), p.k.at(key, head / p.group()));
      }
      scores[n] *= p.scale / double(num_tokens);
    }
    softmax(scores);
    for (int64_t n = 0; n < num_key_groups; ++n) {
      weights[n * stride / kBlock] += scores[n] / double(num_query_groups);
    }
  }
  return weights;
}

}  // namespace

int64_t PbsProblem::num_query_blocks() const { return kernels::ceil_div(q.num_tokens, kBlock); }

int64_t PbsProblem::num_candidates(int64_t block) const {
  return (begin + block * kBlock) / params.segment * params.segment / kBlock;
}

KeyScores key_scores_ref(const PbsProblem& p) {
  KeyScores scores(p.k.num_heads, std::vector<double>(p.num_ordered()));
  const int64_t num_proxies = std::min(kBlock, p.q.num_tokens);
  for (int64_t head = 0; head < p.q.num_heads; ++head) {
    for (int64_t row = p.q.num_tokens - num_proxies; row < p.q.num_tokens; ++row) {
      std::vector<double> probabilities(p.num_ordered());
      for (int64_t t = 0; t < p.num_ordered(); ++t) {
        probabilities[t] = p.scale * dot(p.q.at(row, head), p.k.at(t, head / p.group()));
      }
      softmax(probabilities);
      for (int64_t t = 0; t < p.num_ordered(); ++t) {
        scores[head / p.group()][t] += probabilities[t] / double(num_proxies * p.group());
      }
    }
  }
  return scores;
}

Order order_ref(const PbsProblem& p, const KeyScores& scores) {
  Order order(p.k.num_heads, std::vector<int64_t>(p.num_ordered()));
  for (size_t h = 0; h < order.size(); ++h) {
    std::iota(order[h].begin(), order[h].end(), 0);
    for (auto begin = order[h].begin(); begin != order[h].end(); begin += p.params.segment) {
      std::stable_sort(begin, begin + p.params.segment,
                       [&](int64_t a, int64_t b) { return scores[h][a] > scores[h][b]; });
    }
  }
  return order;
}

Weights weights_ref(const PbsProblem& p, const Order& order) {
  Weights weights(p.q.num_heads);
  for (int64_t head = 0; head < p.q.num_heads; ++head) {
    const auto& places = order[head / p.group()];
    for (int64_t block = 0; block < p.num_query_blocks(); ++block) {
      weights[head].push_back(p.params.scorer == kernels::PbsScorer::kMean
                                  ? mean_weights(p, places, head, block)
                                  : antidiagonal_weights(p, places, head, block));
    }
  }
  return weights;
}

std::vector<bool> choose_ref(const std::vector<double>& weights, kernels::PbsSelector selector,
                             double threshold) {
  std::vector<bool> taken(weights.size(), false);
  std::vector<size_t> heaviest(weights.size());
  std::iota(heaviest.begin(), heaviest.end(), 0);
  std::stable_sort(heaviest.begin(), heaviest.end(),
                   [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  double cumulative = 0;
  for (size_t j : heaviest) {
    if (selector == kernels::PbsSelector::kTopP) {
      if (threshold < 1 && cumulative >= threshold) break;
    } else if (weights[j] < threshold * weights[heaviest[0]]) {
      break;
    }
    taken[j] = true;
    cumulative += weights[j];
  }
  return taken;
}

Taken select_ref(const PbsProblem& p, const Order& order, const Weights& weights) {
  Taken taken(p.q.num_heads);
  for (int64_t head = 0; head < p.q.num_heads; ++head) {
    const auto& places = order[head / p.group()];
    for (const auto& row : weights[head]) {
      taken[head].push_back(choose_ref(row, p.params.selector, p.params.threshold));
      if (row.empty()) continue;
      const auto token_0 = std::find(places.begin(), places.end(), 0) - places.begin();
      taken[head].back()[token_0 / kBlock] = true;
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
  const int64_t position = p.begin + row;
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

}  // namespace pbserve::reference
