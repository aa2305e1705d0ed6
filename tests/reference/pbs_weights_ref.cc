// What the candidates of a query block weigh, by each of the scorers.
#include <algorithm>
#include <cmath>
#include <span>

#include "tests/reference/pbs_ref.h"

namespace pbserve::reference {
namespace {

using kernels::PbsScorer;

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
std::vector<double> mean_key_weights(const std::vector<std::vector<double>>& queries,
                                     std::span<const Moments> candidates, double scale) {
  std::vector<double> weights(candidates.size());
  for (const auto& query : queries) {
    std::vector<double> logits;
    for (const Moments& of_block : candidates) {
      logits.push_back(scale * dot(query, of_block.mean));
    }
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

double second_order(std::span<const double> query, const Moments& of_block, double scale) {
  double sum = 0;
  for (size_t d = 0; d < query.size(); ++d) {
    sum += scale * query[d] * scale * query[d] * of_block.var[d];
  }
  return kernels::kMassSpread / 2 * sum;
}

// Logits of row `row` of the job over the keys of its own segment up to itself.
std::vector<double> own_logits(const PbsProblem& p, int64_t head, int64_t row) {
  const int64_t position = p.job.begin + row;
  std::vector<double> logits;
  for (int64_t t = position / p.params.segment * p.params.segment; t <= position; ++t) {
    logits.push_back(p.scale * dot(p.q.at(row, head), p.k.at(t, head / p.group())));
  }
  return logits;
}

std::vector<double> mass_weights(const PbsProblem& p, const std::vector<int64_t>& order,
                                 std::span<const Moments> candidates, int64_t head, int64_t block) {
  std::vector<double> weights(candidates.size());
  int64_t num_samples = 0;
  for (int64_t t = 0; t < rows_of_block(p, block); t += kernels::kMassStride) {
    const auto query = p.q.at(block * kBlock + t, head);
    // One softmax: of every candidate B keys of its mean mass and its first key, then the keys of
    // the own segment.
    std::vector<double> logits;
    for (size_t j = 0; j < candidates.size(); ++j) {
      const auto first = p.k.at(order[int64_t(j) * kBlock], head / p.group());
      logits.push_back(std::log(double(kBlock)) + p.scale * dot(query, candidates[j].mean) +
                       second_order(query, candidates[j], p.scale));
      logits.push_back(p.scale * dot(query, first));
    }
    const auto own = own_logits(p, head, block * kBlock + t);
    logits.insert(logits.end(), own.begin(), own.end());
    softmax(logits);
    for (size_t j = 0; j < weights.size(); ++j) {
      const double share = logits[2 * j] + logits[2 * j + 1];
      weights[j] += share * share;
    }
    ++num_samples;
  }
  for (double& weight : weights) weight = std::sqrt(weight / double(num_samples));
  return weights;
}

}  // namespace

Moments moments_ref(const PbsProblem& p, const Order& order, int64_t kv_head, int64_t block,
                    kernels::DType dtype) {
  Moments moments{std::vector<double>(p.k.head_dim), std::vector<double>(p.k.head_dim)};
  const auto for_each_key = [&](const auto& body) {
    for (int64_t place = block * kBlock; place < (block + 1) * kBlock; ++place) {
      body(p.k.at(order[kv_head][place], kv_head));
    }
  };
  auto& [mean, var] = moments;
  for_each_key([&](std::span<const double> key) {
    for (size_t d = 0; d < key.size(); ++d) mean[d] += key[d] / double(kBlock);
  });
  for_each_key([&](std::span<const double> key) {
    for (size_t d = 0; d < key.size(); ++d) {
      var[d] += (key[d] - mean[d]) * (key[d] - mean[d]) / double(kBlock);
    }
  });
  for (double& x : mean) x = rounded(x, dtype);
  for (double& x : var) x = rounded(x, dtype);
  return moments;
}

BlockMoments block_moments_ref(const PbsProblem& p, const Order& order, kernels::DType dtype) {
  BlockMoments moments(p.k.num_heads);
  for (int64_t h = 0; h < p.k.num_heads; ++h) {
    for (int64_t j = 0; j < p.num_complete_blocks(); ++j) {
      moments[h].push_back(moments_ref(p, order, h, j, dtype));
    }
  }
  return moments;
}

Weights weights_ref(const PbsProblem& p, const Order& order, const BlockMoments& moments) {
  Weights weights(p.q.num_heads);
  for (int64_t head = 0; head < p.q.num_heads; ++head) {
    const int64_t kv_head = head / p.group();
    for (int64_t block = 0; block < p.num_query_blocks(); ++block) {
      const auto candidates =
          std::span<const Moments>(moments[kv_head]).first(p.num_candidates(block));
      if (p.params.scorer == PbsScorer::kAntidiagonal) {
        weights[head].push_back(antidiagonal_weights(p, order[kv_head], head, block));
      } else if (p.params.scorer == PbsScorer::kMass) {
        weights[head].push_back(mass_weights(p, order[kv_head], candidates, head, block));
      } else {
        weights[head].push_back(mean_key_weights(queries_of(p, head, block), candidates, p.scale));
      }
    }
  }
  return weights;
}

double second_order_max_ref(const PbsProblem& p, const BlockMoments& moments, int64_t head,
                            int64_t block) {
  double most = 0;
  for (int64_t i = 0; i < rows_of_block(p, block); i += kernels::kMassStride) {
    for (int64_t j = 0; j < p.num_candidates(block); ++j) {
      most = std::max(most, second_order(p.q.at(block * kBlock + i, head),
                                         moments[head / p.group()][j], p.scale));
    }
  }
  return most;
}

}  // namespace pbserve::reference
