// PBS as the paper describes it (arXiv 2510.21270, section 4), against C = 0 and one query head per
// key head: the whole prompt is one span. Written as the paper writes it, with matrices of one
// head, and sharing nothing with tests/reference/.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {
namespace {

using Row = std::vector<double>;
using Matrix = std::vector<Row>;

constexpr size_t kB = 128;  // block
constexpr double kTau = 0.8;
constexpr AttentionShape kShapes[] = {{2, 2, 64, DType::kF32}, {2, 2, 64, DType::kBF16}};

Matrix head_of(const reference::Heads& heads, int64_t head) {
  Matrix rows;
  for (int64_t t = 0; t < heads.num_tokens; ++t) {
    const auto row = heads.at(t, head);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

// softmax(Q K^T / sqrt(d)); entries where visible(row, column) is false are zero.
template <class Visible>
Matrix attention_matrix(const Matrix& q, const Matrix& k, const Visible& visible) {
  Matrix p(q.size(), Row(k.size()));
  for (size_t i = 0; i < q.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < k.size(); ++j) {
      if (!visible(i, j)) continue;
      const double qk = std::inner_product(q[i].begin(), q[i].end(), k[j].begin(), 0.0);
      sum += p[i][j] = std::exp(qk / std::sqrt(double(q[i].size())));
    }
    for (double& x : p[i]) x = sum > 0 ? x / sum : 0;
  }
  return p;
}

Matrix pooled(const Matrix& x) {
  Matrix means(x.size() / kB, Row(x[0].size()));
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t d = 0; d < x[t].size(); ++d) means[t / kB][d] += x[t][d] / double(kB);
  }
  return means;
}

Row scores_of_last_block(const Matrix& q, const Matrix& k) {
  const Matrix last(q.end() - kB, q.end());
  const Matrix p = attention_matrix(last, k, [](size_t, size_t) { return true; });
  Row scores(k.size());
  for (const Row& row : p) {
    for (size_t j = 0; j < row.size(); ++j) scores[j] += row[j] / double(kB);
  }
  return scores;
}

std::vector<size_t> segmented_permutation(const Row& scores, size_t segment) {
  std::vector<size_t> pi(scores.size());
  std::iota(pi.begin(), pi.end(), 0);
  for (size_t base = 0; base < pi.size(); base += segment) {
    std::stable_sort(pi.begin() + base, pi.begin() + base + segment,
                     [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  }
  return pi;
}

struct Published {
  std::vector<size_t> pi;
  bool clear_blocks = true;  // no near tie decides which block a key falls into
  Matrix weights;            // [query block][key block]
  std::vector<std::vector<bool>> mask;
  std::vector<bool> clear_rows;  // no near tie decides the row's selection
  Matrix out;
};

// Takes the heaviest of a row until tau is reached.
void select_row(const Row& weights, Published& result) {
  std::vector<size_t> heaviest(weights.size());
  std::iota(heaviest.begin(), heaviest.end(), 0);
  std::stable_sort(heaviest.begin(), heaviest.end(),
                   [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  std::vector<bool> taken(weights.size(), false);
  bool clear = true;
  double mass = 0;
  for (size_t i = 0; i < heaviest.size() && mass < kTau; ++i) {
    const double weight = weights[heaviest[i]];
    if (weight == 0) break;
    taken[heaviest[i]] = true;
    mass += weight;
    clear = clear && std::abs(mass - kTau) > 1e-5;
    const bool is_last = mass >= kTau;
    if (is_last && i + 1 < heaviest.size()) {
      clear = clear && weight - weights[heaviest[i + 1]] > 1e-6;
    }
  }
  result.mask.push_back(taken);
  result.clear_rows.push_back(clear);
}

Published published(const Matrix& q, const Matrix& k, const Matrix& v, size_t segment) {
  Published result;
  const Row scores = scores_of_last_block(q, k);
  result.pi = segmented_permutation(scores, segment);
  for (size_t place = kB; place < k.size(); place += kB) {
    if (place % segment == 0) continue;
    const double before = scores[result.pi[place - 1]], after = scores[result.pi[place]];
    result.clear_blocks = result.clear_blocks && before > after * (1 + 1e-4);
  }
  Matrix permuted_k, permuted_v;
  for (size_t t : result.pi) permuted_k.push_back(k[t]), permuted_v.push_back(v[t]);

  const auto segment_of = [&](size_t block) { return block * kB / segment; };
  result.weights = attention_matrix(pooled(q), pooled(permuted_k), [&](size_t i, size_t j) {
    return segment_of(j) < segment_of(i);
  });
  for (const Row& row : result.weights) select_row(row, result);

  const Matrix p = attention_matrix(q, permuted_k, [&](size_t t, size_t place) {
    if (segment_of(place / kB) < segment_of(t / kB)) return bool(result.mask[t / kB][place / kB]);
    return segment_of(place / kB) == segment_of(t / kB) && result.pi[place] <= t;
  });
  for (const Row& row : p) {
    Row sum(v[0].size());
    for (size_t j = 0; j < row.size(); ++j) {
      for (size_t d = 0; d < sum.size(); ++d) sum[d] += row[j] * permuted_v[j][d];
    }
    result.out.push_back(sum);
  }
  return result;
}

class PbsPublished : public ::testing::TestWithParam<std::tuple<AttentionTestCase, int32_t>> {
 protected:
  const AttentionTestCase& attention_case() const { return std::get<0>(GetParam()); }
  const Stream stream_ = stream_of(attention_case().backend);
};

INSTANTIATE_TEST_SUITE_P(Lengths, PbsPublished,
                         ::testing::Combine(::testing::ValuesIn(attention_cases(kShapes)),
                                            ::testing::Values(256, 768, 1024)),
                         [](const auto& test) {
                           const AttentionTestCase& on = std::get<0>(test.param);
                           return on.backend.name + "_" + on.shape.name() + "_" +
                                  std::to_string(std::get<int32_t>(test.param));
                         });

TEST_P(PbsPublished, SameOrderMaskAndOutput) {
  const AttentionShape& shape = attention_case().shape;
  const int32_t len = std::get<int32_t>(GetParam());
  for (int32_t segment : {128, 256}) {
    SCOPED_TRACE(segment);
    PbsCase pbs(stream_, shape, job_of(0, len, /*span_len=*/0),
                {.segment = segment,
                 .scorer = PbsScorer::kMean,
                 .selector = PbsSelector::kTopP,
                 .threshold = float(kTau),
                 .sink = 0,
                 .sink_free = false,
                 .dense_tail = 0},
                12);
    pbs.order();
    pbs.select();
    pbs.prefill();
    const auto order = pbs.kernel_order();
    const auto taken = pbs.kernel_taken();
    for (int64_t h = 0; h < shape.num_q_heads; ++h) {
      const auto& problem = pbs.problem();
      const Published paper = published(head_of(problem.q, h), head_of(problem.k, h),
                                        head_of(problem.v, h), static_cast<size_t>(segment));
      ASSERT_TRUE(paper.clear_blocks) << "near ties: choose another seed";
      int64_t same_places = 0;
      for (size_t place = 0; place < paper.pi.size(); ++place) {
        same_places += order[h][place] == int64_t(paper.pi[place]);
      }
      EXPECT_GE(same_places * 100, len * 99);
      int64_t clear = 0;
      for (size_t i = 0; i < paper.mask.size(); ++i) {
        if (!paper.clear_rows[i]) continue;
        ++clear;
        for (size_t j = 0; j < taken[h][i].size(); ++j) {
          ASSERT_EQ(taken[h][i][j], paper.mask[i][j]) << "blocks " << i << ", " << j;
        }
        for (size_t t = i * kB; t < (i + 1) * kB; ++t) {
          ASSERT_TRUE(close_to(paper.out[t], pbs.out(), int64_t(t), h, pbs.arithmetic_error()));
        }
      }
      EXPECT_GE(clear * 10, int64_t(paper.mask.size()) * 9);
    }
  }
}

}  // namespace
}  // namespace pbserve::test
