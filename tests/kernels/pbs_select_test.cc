// Step 2 of PBS: which blocks are taken.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {
namespace {

// How far a weight may be off, relatively; thresholds and weights that close may fall to either
// side. In float32 fused chains a logit of a few units is off by less than 5e-6, and a weight, with
// its normalizer, by twice that. Tensor cores truncate the sum at each 16 products: with logits
// that are sums of |q| |k| / sqrt(D) of about sqrt(D) in total, stride D / 16 times 2^-23 of that.
double nearness(const PbsCase& pbs) {
  if (!pbs.is_cuda() || pbs.problem().params.scorer == PbsScorer::kMean) return 1e-5;
  const auto dim = static_cast<double>(pbs.shape.head_dim);
  return 2 * pbs.problem().params.stride * dim / 16 * 0x1p-23 * std::sqrt(dim);
}

struct Method {
  PbsScorer scorer;
  int32_t stride;
  PbsSelector selector;
  float threshold;

  PbsParams params(int32_t segment = 256) const {
    return {.segment = segment,
            .scorer = scorer,
            .stride = stride,
            .selector = selector,
            .threshold = threshold};
  }
};

std::string name_of(const Method& m) {
  std::ostringstream text;
  if (m.scorer == PbsScorer::kMean) text << "mean";
  if (m.scorer == PbsScorer::kAntidiagonal) text << "antidiagonal" << m.stride;
  text << (m.selector == PbsSelector::kTopP ? "_top_p_" : "_max_ratio_");
  text << std::lround(m.threshold * 100);
  return text.str();
}

// A candidate is certain if it is taken, or not, at a threshold a little to either side too and its
// weight is not a tie with the last one taken.
struct Certainty {
  std::vector<bool> taken;
  std::vector<bool> left;
};

Certainty certainty(const std::vector<double>& weights, const PbsParams& params, double near) {
  const bool is_top_p = params.selector == PbsSelector::kTopP;
  const double few = is_top_p ? params.threshold - near : params.threshold + near;
  const double many = is_top_p ? params.threshold + near : params.threshold - near;
  const auto at_least = reference::choose_ref(weights, params.selector, few);
  const auto at_most = reference::choose_ref(weights, params.selector, many);
  double lightest_taken = 2, heaviest_left = -1;
  for (size_t j = 0; j < weights.size(); ++j) {
    if (at_least[j]) lightest_taken = std::min(lightest_taken, weights[j]);
    if (!at_most[j]) heaviest_left = std::max(heaviest_left, weights[j]);
  }
  Certainty certain{std::vector<bool>(weights.size()), std::vector<bool>(weights.size())};
  for (size_t j = 0; j < weights.size(); ++j) {
    certain.taken[j] = at_least[j] && weights[j] > heaviest_left * (1 + near);
    certain.left[j] = !at_most[j] && weights[j] < lightest_taken * (1 - near);
  }
  return certain;
}

int64_t block_of_token_0(const std::vector<int64_t>& order) {
  return (std::ranges::find(order, 0) - order.begin()) / kPbsBlock;
}

// The kernel's mask against the oracle's weights on the kernel's order, and the count of blocks.
void expect_selected(PbsCase& pbs) {
  pbs.order();
  const int64_t counted = pbs.select();
  const auto order = pbs.kernel_order();
  const auto weights = reference::weights_ref(pbs.problem(), order);
  const auto taken = pbs.kernel_taken();
  int64_t attended = 0, uncertain = 0, candidates = 0;
  for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
    for (int64_t block = 0; block < pbs.problem().num_query_blocks(); ++block) {
      const auto certain = certainty(weights[h][block], pbs.params(), nearness(pbs));
      const auto& bits = taken[h][block];
      for (size_t j = 0; j < bits.size(); ++j) {
        const bool has_token_0 =
            static_cast<int64_t>(j) == block_of_token_0(order[h / pbs.problem().group()]);
        if (certain.taken[j] || has_token_0) {
          ASSERT_TRUE(bits[j]) << "head " << h << " block " << block << " candidate " << j;
        } else if (certain.left[j]) {
          ASSERT_FALSE(bits[j]) << "head " << h << " block " << block << " candidate " << j;
        } else {
          ++uncertain;
        }
      }
      const int64_t idx = pbs.span.begin / kPbsBlock + block;
      const int64_t own = idx % (pbs.params().segment / kPbsBlock) + 1;
      attended += std::ranges::count(bits, true) + own;
      candidates += static_cast<int64_t>(bits.size());
    }
  }
  EXPECT_EQ(counted, attended);
  EXPECT_LE(counted, num_causal_blocks(pbs.span, pbs.shape.num_q_heads));
  EXPECT_LE(uncertain * 50, candidates) << "the test decides too few";
}

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

constexpr Method kMethods[] = {
    {PbsScorer::kMean, 8, PbsSelector::kTopP, 0.9f},
    {PbsScorer::kMean, 8, PbsSelector::kTopP, 0.5f},
    {PbsScorer::kMean, 8, PbsSelector::kMaxRatio, 0.3f},
    {PbsScorer::kAntidiagonal, 8, PbsSelector::kTopP, 0.9f},
    {PbsScorer::kAntidiagonal, 16, PbsSelector::kTopP, 0.7f},
    {PbsScorer::kAntidiagonal, 8, PbsSelector::kMaxRatio, 0.2f},
};

class PbsSelectOfMethod : public ::testing::TestWithParam<std::tuple<Backend, Method>> {
 protected:
  const Backend& backend() const { return std::get<Backend>(GetParam()); }
  const Method& method() const { return std::get<Method>(GetParam()); }
  const Stream stream_ = stream_of(backend());
};

INSTANTIATE_TEST_SUITE_P(Methods, PbsSelectOfMethod,
                         ::testing::Combine(::testing::ValuesIn(backends()),
                                            ::testing::ValuesIn(kMethods)),
                         [](const auto& test) {
                           return std::get<Backend>(test.param).name + "_" +
                                  name_of(std::get<Method>(test.param));
                         });

TEST_P(PbsSelectOfMethod, MatchesTheReference) {
  for (const PbsSpan span : {PbsSpan{0, 1}, PbsSpan{0, 257}, PbsSpan{0, 1023}, PbsSpan{0, 1024},
                             PbsSpan{1024, 1025}, PbsSpan{1024, 1999}}) {
    for (int32_t segment : {128, 256}) {
      SCOPED_TRACE(testing::Message() << span.begin << ".." << span.end << " S " << segment);
      PbsCase pbs(stream_, kDemo, span, method().params(segment));
      expect_selected(pbs);
    }
  }
}

TEST_P(PbsSelectOfMethod, ARangeOfBlocksGivesTheBitsOfTheWhole) {
  const Stream one_thread = stream_of(backend(), 1);
  PbsCase whole(stream_, kDemo, {1024, 1999}, method().params());
  PbsCase parts(one_thread, kDemo, {1024, 1999}, method().params());
  whole.order();
  parts.order();
  const int64_t counted = whole.select();
  int64_t counted_in_parts = 0;
  for (int64_t begin : {5, 0, 1}) {
    const int64_t end = begin == 0 ? 1 : begin == 1 ? 5 : 8;
    counted_in_parts += parts.select(begin, end);
  }
  EXPECT_EQ(counted, counted_in_parts);
  EXPECT_EQ(whole.kernel_taken(), parts.kernel_taken());
}

// A backend may work off the blocks in batches that its scratch has room for.
TEST_P(PbsSelectOfMethod, LittleScratchGivesTheBitsOfMuch) {
  PbsCase much(stream_, kDemo, {1024, 1999}, method().params());
  PbsCase little(stream_, kDemo, {1024, 1999}, method().params());
  much.order();
  little.order();
  little.limit_scratch(25'000);  // on CUDA two query blocks at stride 8
  EXPECT_EQ(much.select(), little.select());
  EXPECT_EQ(much.kernel_taken(), little.kernel_taken());
}

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},  {4, 1, 128, DType::kF32},  {7, 1, 64, DType::kBF16},
    {8, 1, 64, DType::kBF16}, {8, 2, 128, DType::kBF16}, {4, 4, 64, DType::kF32},
    {2, 2, 64, DType::kBF16},
};

class PbsSelectOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const Stream stream_ = stream_of(GetParam().backend);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PbsSelectOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PbsSelectOfShape, MatchesTheReference) {
  for (const PbsParams& params :
       {PbsParams{.scorer = PbsScorer::kMean, .threshold = 0.8f},
        PbsParams{.stride = 8, .threshold = 0.8f}, PbsParams{.stride = 16, .threshold = 0.8f}}) {
    PbsCase pbs(stream_, GetParam().shape, {1024, 1411}, params);
    expect_selected(pbs);
  }
}

class PbsSelect : public ::testing::TestWithParam<Backend> {
 protected:
  const Stream stream_ = stream_of(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Backends, PbsSelect, ::testing::ValuesIn(backends()), backend_name);

// More key blocks than fit one tile of a GPU's products or one word of the mask, at both strides.
TEST_P(PbsSelect, ALongContextMatchesTheReference) {
  constexpr AttentionShape kSmall{2, 1, 64, DType::kBF16};
  constexpr AttentionShape kWide{8, 2, 128, DType::kBF16};
  for (const AttentionShape& shape : {kSmall, kWide}) {
    for (int32_t stride : {8, 16}) {
      PbsCase pbs(stream_, shape, {9216, 9417}, {.stride = stride, .threshold = 0.8f});
      expect_selected(pbs);
    }
  }
  PbsCase mean(stream_, kSmall, {9216, 9417}, {.scorer = PbsScorer::kMean, .threshold = 0.8f});
  expect_selected(mean);
}

// Several tiles of query rows by several of key blocks; the first rows skip the last blocks.
TEST_P(PbsSelect, ALongSpanMatchesTheReference) {
  PbsCase pbs(stream_, kDemo, {0, 6400}, {.stride = 8, .threshold = 0.8f});
  expect_selected(pbs);
}

// More tiles of products than a GPU's multiprocessors work on at a time.
TEST_P(PbsSelect, ManyHeadsOfALongContextMatchTheReference) {
  constexpr AttentionShape kManyHeads{16, 16, 64, DType::kBF16};
  PbsCase pbs(stream_, kManyHeads, {9216, 9417}, {.threshold = 0.8f});
  expect_selected(pbs);
}

// Also where the first segment carries all the weight that float32 can tell from 1.
TEST_P(PbsSelect, ThresholdOfOneTakesEveryBlock) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 2048, rng);
  std::ranges::fill(sequence.q.data, 1.0);
  for (int64_t t = 0; t < 256; ++t) {
    for (int64_t h = 0; h < 2; ++h) std::ranges::fill(sequence.k.at(t, h), 8.0);
  }
  for (PbsScorer scorer : {PbsScorer::kMean, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, kDemo, {1024, 1999}, {.scorer = scorer, .threshold = 1.f}, sequence);
    pbs.order();
    EXPECT_EQ(pbs.select(), num_causal_blocks(pbs.span, 6));
  }
}

// The smallest threshold leaves the heaviest block, the one with token 0 and the own segment.
TEST_P(PbsSelect, TheBlockOfTokenZeroIsAlwaysTaken) {
  PbsCase pbs(stream_, kDemo, {1024, 2048}, {.threshold = 1e-6f});
  pbs.order();
  const int64_t counted = pbs.select();
  const auto order = pbs.kernel_order();
  const auto taken = pbs.kernel_taken();
  int64_t other = 0;
  for (int64_t h = 0; h < 6; ++h) {
    for (const auto& bits : taken[h]) {
      EXPECT_TRUE(bits[block_of_token_0(order[h / 3])]);
      const auto count = std::ranges::count(bits, true);
      EXPECT_LE(count, 2);
      other += count == 2;
    }
  }
  EXPECT_GT(other, 0);
  EXPECT_EQ(counted,
            6 * 8 + other + 6 * 12);  // token 0's block; the heaviest; own segments: 1 or 2
}

// Keys that weigh exactly the same: the lower block goes first.
TEST_P(PbsSelect, EqualWeightsAreTakenInOrderOfBlocks) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 1280, rng);
  for (int64_t t = 1; t < 1024; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      std::ranges::copy(sequence.k.at(0, h), sequence.k.at(t, h).begin());
    }
  }
  for (PbsScorer scorer : {PbsScorer::kMean, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, kDemo, {1024, 1280}, {.scorer = scorer, .threshold = 0.6f}, sequence);
    pbs.order();
    pbs.select();
    const std::vector<bool> expected = {true, true, true, true, true, false, false, false};
    for (const auto& head : pbs.kernel_taken()) {
      for (const auto& bits : head) EXPECT_EQ(bits, expected);
    }
  }
}

}  // namespace
}  // namespace pbserve::test
