#include "tests/reference/pbs_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace pbserve::reference {
namespace {

using kernels::PbsParams;
using kernels::PbsScorer;
using kernels::PbsSelector;
using kernels::PbsSpan;

constexpr int64_t kBlock = kernels::kPbsBlock;

int64_t rows_of_block(const PbsProblem& p, int64_t block) {
  return std::min(kBlock, p.q.num_tokens - block * kBlock);
}

double rounded(double value, kernels::DType dtype) {
  const auto narrow = static_cast<float>(value);
  return dtype == kernels::DType::kBF16
             ? double{kernels::to_f32(kernels::from_f32<kernels::BF16>(narrow))}
             : double{narrow};
}

// Softmax of the candidates for each query vector, mean over the vectors.
std::vector<double> weights_of(const std::vector<std::vector<double>>& queries,
                               const std::vector<std::vector<double>>& means, double scale) {
  std::vector<double> weights(means.size());
  for (const auto& query : queries) {
    std::vector<double> logits;
    for (const auto& mean : means) logits.push_back(scale * dot(query, mean));
    softmax(logits);
    for (size_t j = 0; j < logits.size(); ++j) weights[j] += logits[j] / double(queries.size());
  }
  return weights;
}

std::vector<std::vector<double>> queries_of(const PbsProblem& p, int64_t head, int64_t block) {
  std::vector<std::vector<double>> queries;
  for (int64_t i = 0; i < rows_of_block(p, block); ++i) {
    const auto row = p.q.at(block * kBlock + i, head);
    queries.emplace_back(row.begin(), row.end());
  }
  if (p.params.scorer == PbsScorer::kQuery) return queries;
  std::vector<double> mean(p.q.head_dim);
  for (const auto& query : queries) {
    for (size_t d = 0; d < mean.size(); ++d) mean[d] += query[d] / double(queries.size());
  }
  return {mean};
}

std::vector<double> antidiagonal_weights(const PbsProblem& p, const std::vector<int64_t>& order,
                                         int64_t head, int64_t block) {
  const int64_t stride = p.params.stride;
  const int64_t num_rows = rows_of_block(p, block);
  const int64_t num_query_groups = (num_rows + stride - 1) / stride;
  const int64_t num_key_groups = p.num_candidates(block) * kBlock / stride;
  std::vector<double> weights(p.num_candidates(block));
  for (int64_t m = 0; m < num_query_groups; ++m) {
    const int64_t num_tokens = std::min(stride, num_rows - m * stride);
    std::vector<double> scores(num_key_groups);
    for (int64_t n = 0; n < num_key_groups; ++n) {
      for (int64_t r = 0; r < stride; ++r) {
        if (stride - 1 - r >= num_tokens) continue;
        const int64_t row = block * kBlock + m * stride + stride - 1 - r;
        scores[n] += dot(p.q.at(row, head), p.k.at(order[n * stride + r], head / p.group()));
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

std::vector<double> block_mean_ref(const PbsProblem& p, const Order& order, int64_t kv_head,
                                   int64_t block, kernels::DType dtype) {
  std::vector<double> mean(p.k.head_dim);
  for (int64_t place = block * kBlock; place < (block + 1) * kBlock; ++place) {
    const auto row = p.k.at(order[kv_head][place], kv_head);
    for (int64_t d = 0; d < p.k.head_dim; ++d) mean[d] += row[d] / double(kBlock);
  }
  for (double& x : mean) x = rounded(x, dtype);
  return mean;
}

Weights weights_ref(const PbsProblem& p, const Order& order, kernels::DType dtype) {
  std::vector<std::vector<std::vector<double>>> means(p.k.num_heads);
  const int64_t num_candidates = p.num_candidates(p.num_query_blocks() - 1);
  for (int64_t h = 0; h < p.k.num_heads; ++h) {
    for (int64_t j = 0; j < num_candidates; ++j) {
      means[h].push_back(block_mean_ref(p, order, h, j, dtype));
    }
  }
  Weights weights(p.q.num_heads);
  for (int64_t head = 0; head < p.q.num_heads; ++head) {
    const int64_t kv_head = head / p.group();
    for (int64_t block = 0; block < p.num_query_blocks(); ++block) {
      if (p.params.scorer == PbsScorer::kAntidiagonal) {
        weights[head].push_back(antidiagonal_weights(p, order[kv_head], head, block));
        continue;
      }
      const auto begin = means[kv_head].begin();
      weights[head].push_back(weights_of(queries_of(p, head, block),
                                         {begin, begin + p.num_candidates(block)}, p.scale));
    }
  }
  return weights;
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
  double budget = 1;
  if (params.sink_free) {
    for (size_t j = 0; j < weights.size(); ++j) weights[j] = taken[j] ? 0 : weights[j];
    budget = std::accumulate(weights.begin(), weights.end(), 0.0);
  }
  std::vector<size_t> heaviest(weights.size());
  std::iota(heaviest.begin(), heaviest.end(), 0);
  std::stable_sort(heaviest.begin(), heaviest.end(),
                   [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  const double tau = double{params.threshold};
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
