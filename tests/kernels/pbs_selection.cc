#include "tests/kernels/pbs_selection.h"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace pbserve::test {
namespace {

// How far a weight of a query block may be off, relatively; thresholds and weights that close may
// fall to either side. In float32 fused chains a logit of a few units is off by less than 5e-6, and
// a weight, with its normalizer, by twice that. Tensor cores truncate the sum at each 16 products:
// with logits that are sums of |q| |k| / sqrt(D) of about sqrt(D) in total, for each of the vectors
// that a logit adds up D / 16 times 2^-23 of that. For scorer mass a GPU rounds q^2 to bf16 before
// its product besides: a logit is off by 2^-9 of its second-order term.
double nearness(const PbsCase& pbs, double second_order_max) {
  constexpr double kFloat32 = 1e-5;
  const PbsParams& params = pbs.problem().params;
  if (!pbs.is_cuda() || params.scorer == PbsScorer::kMean) return kFloat32;
  const bool is_mass = params.scorer == PbsScorer::kMass;
  const double vectors = is_mass ? 2 : params.scorer == PbsScorer::kQuery ? 1 : params.stride;
  const auto dim = static_cast<double>(pbs.shape.head_dim);
  const double rounded_squares = is_mass ? 0x1p-8 * second_order_max : 0;
  return kFloat32 + 2 * vectors * dim / 16 * 0x1p-23 * std::sqrt(dim) + rounded_squares;
}

// The threshold at which weights have to be 1 + by times as large to be taken; of top_p, at which
// less or more of them is.
float stricter(const PbsParams& params, double by) {
  const double threshold = double{params.threshold};
  switch (params.selector) {
    case PbsSelector::kErrorBound:
      return static_cast<float>(1 - (1 - threshold) * (1 + by));
    case PbsSelector::kTopP:
      return static_cast<float>(threshold * (1 - by));
    case PbsSelector::kMaxRatio:
      return static_cast<float>(threshold * (1 + by));
  }
  return 0;
}

// A candidate is certain if it is taken, or not, at a threshold a little to either side too and its
// weight is not a tie with the last one taken.
struct Certainty {
  std::vector<bool> taken;
  std::vector<bool> left;
};

Certainty certainty(const std::vector<double>& weights, PbsParams params, double near) {
  const auto always = reference::always_taken_ref(params, static_cast<int64_t>(weights.size()));
  const PbsParams given = params;
  params.threshold = stricter(given, near);
  const auto at_least = reference::choose_ref(weights, params);
  params.threshold = stricter(given, -near);
  const auto at_most = reference::choose_ref(weights, params);
  double lightest_taken = 2, heaviest_left = -1;
  for (size_t j = 0; j < weights.size(); ++j) {
    if (at_least[j] && !always[j]) lightest_taken = std::min(lightest_taken, weights[j]);
    if (!at_most[j]) heaviest_left = std::max(heaviest_left, weights[j]);
  }
  Certainty certain{std::vector<bool>(weights.size()), std::vector<bool>(weights.size())};
  for (size_t j = 0; j < weights.size(); ++j) {
    certain.taken[j] = always[j] || (at_least[j] && weights[j] > heaviest_left * (1 + near));
    certain.left[j] = !at_most[j] && weights[j] < lightest_taken * (1 - near);
  }
  return certain;
}

}  // namespace

void expect_selected(PbsCase& pbs) {
  pbs.order();
  const int64_t counted = pbs.select();
  const auto& problem = pbs.problem();
  const auto moments = pbs.kernel_moments();
  const auto weights = reference::weights_ref(problem, pbs.kernel_order(), moments);
  const auto taken = pbs.kernel_taken();
  int64_t attended = 0, uncertain = 0, candidates = 0;
  for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
    for (int64_t block = 0; block < problem.num_query_blocks(); ++block) {
      const double near = nearness(pbs, second_order_max_ref(problem, moments, h, block));
      const auto certain = certainty(weights[h][block], pbs.params(), near);
      const auto& bits = taken[h][block];
      for (size_t j = 0; j < bits.size(); ++j) {
        if (certain.taken[j] || problem.is_dense_tail(block)) {
          ASSERT_TRUE(bits[j]) << "head " << h << " block " << block << " candidate " << j;
        } else if (certain.left[j]) {
          ASSERT_FALSE(bits[j]) << "head " << h << " block " << block << " candidate " << j;
        } else {
          ++uncertain;
        }
      }
      const int64_t own = problem.prompt_block(block) % (pbs.params().segment / kPbsBlock) + 1;
      attended += std::ranges::count(bits, true) + own;
      candidates += static_cast<int64_t>(bits.size());
    }
  }
  EXPECT_EQ(counted, attended);
  EXPECT_LE(counted, num_causal_blocks({pbs.job.begin, pbs.job.end}, pbs.shape.num_q_heads));
  EXPECT_LE(uncertain * 20, candidates) << "the test decides too few";
}

std::string name_of(const PbsParams& p) {
  std::ostringstream text;
  if (p.scorer == PbsScorer::kMass) text << "mass";
  if (p.scorer == PbsScorer::kQuery) text << "query";
  if (p.scorer == PbsScorer::kMean) text << "mean";
  if (p.scorer == PbsScorer::kAntidiagonal) text << "antidiagonal" << p.stride;
  if (p.selector == PbsSelector::kTopP) text << "_top_p";
  if (p.selector == PbsSelector::kMaxRatio) text << "_max_ratio";
  text << "_" << std::lround(p.threshold * 100) << (p.sink_free ? "_free" : "");
  if (p.sink != 1) text << "_sink" << p.sink;
  if (p.local != 0) text << "_local" << p.local;
  if (p.dense_tail != 2) text << "_tail" << p.dense_tail;
  return text.str();
}

}  // namespace pbserve::test
