// Step 2 of PBS: which blocks are taken.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {
namespace {

// How far a weight may be off, relatively; thresholds and weights that close may fall to either
// side. In float32 fused chains a logit of a few units is off by less than 5e-6, and a weight, with
// its normalizer, by twice that. Mean keys of bf16 are half a step off where the kernel's float32
// sum and the oracle's round to different sides: a few of D, each 2^-8 of an element. Tensor cores
// truncate the sum at each 16 products: with logits that are sums of |q| |k| / sqrt(D) of about
// sqrt(D) in total, `stride` D / 16 times 2^-23 of that.
double nearness(const PbsCase& pbs) {
  const PbsParams& params = pbs.problem().params;
  const auto dim = static_cast<double>(pbs.shape.head_dim);
  const double means =
      params.scorer != PbsScorer::kAntidiagonal && pbs.shape.dtype == DType::kBF16 ? 1e-3 : 1e-5;
  if (!pbs.is_cuda() || params.scorer == PbsScorer::kMean) return means;
  const double vectors = params.scorer == PbsScorer::kQuery ? 1 : params.stride;
  return means + 2 * vectors * dim / 16 * 0x1p-23 * std::sqrt(dim);
}

std::string name_of(const PbsParams& p) {
  std::ostringstream text;
  if (p.scorer == PbsScorer::kQuery) text << "query";
  if (p.scorer == PbsScorer::kMean) text << "mean";
  if (p.scorer == PbsScorer::kAntidiagonal) text << "antidiagonal" << p.stride;
  text << (p.selector == PbsSelector::kTopP ? "_top_p_" : "_max_ratio_");
  text << std::lround(p.threshold * 100) << (p.sink_free ? "_free" : "");
  if (p.sink != 1) text << "_sink" << p.sink;
  if (p.local != 0) text << "_local" << p.local;
  if (p.dense_tail != 2) text << "_tail" << p.dense_tail;
  return text.str();
}

// A candidate is certain if it is taken, or not, at a threshold a little to either side too and its
// weight is not a tie with the last one taken.
struct Certainty {
  std::vector<bool> taken;
  std::vector<bool> left;
};

Certainty certainty(const std::vector<double>& weights, PbsParams params, double near) {
  const auto always = reference::always_taken_ref(params, static_cast<int64_t>(weights.size()));
  const auto chosen_at = [&](double factor) {
    params.threshold = static_cast<float>(double{params.threshold} * factor);
    const auto chosen = reference::choose_ref(weights, params);
    params.threshold = static_cast<float>(double{params.threshold} / factor);
    return chosen;
  };
  const bool is_top_p = params.selector == PbsSelector::kTopP;
  const auto at_least = chosen_at(is_top_p ? 1 - near : 1 + near);
  const auto at_most = chosen_at(is_top_p ? 1 + near : 1 - near);
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

// The kernel's mask against the oracle's weights on the kernel's order, and the count of blocks.
void expect_selected(PbsCase& pbs) {
  pbs.order();
  const int64_t counted = pbs.select();
  const auto& problem = pbs.problem();
  const auto weights = reference::weights_ref(problem, pbs.kernel_order(), pbs.shape.dtype);
  const auto taken = pbs.kernel_taken();
  int64_t attended = 0, uncertain = 0, candidates = 0;
  for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
    for (int64_t block = 0; block < problem.num_query_blocks(); ++block) {
      const auto certain = certainty(weights[h][block], pbs.params(), nearness(pbs));
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

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

const PbsParams kMethods[] = {
    {.threshold = 0.7f},
    {.threshold = 0.4f},
    {.threshold = 0.9f, .sink_free = false},
    {.threshold = 0.6f, .sink = 0, .dense_tail = 0},
    {.threshold = 0.6f, .sink = 3, .local = 1},
    {.threshold = 0.7f, .local = 2, .sink_free = false, .dense_tail = 1},
    {.selector = PbsSelector::kMaxRatio, .threshold = 0.2f},
    {.scorer = PbsScorer::kMean, .threshold = 0.9f, .sink_free = false},
    {.scorer = PbsScorer::kMean, .threshold = 0.5f},
    {.scorer = PbsScorer::kMean, .selector = PbsSelector::kMaxRatio, .threshold = 0.3f},
    {.scorer = PbsScorer::kAntidiagonal, .stride = 8, .threshold = 0.9f, .sink_free = false},
    {.scorer = PbsScorer::kAntidiagonal, .stride = 16, .threshold = 0.7f},
    {.scorer = PbsScorer::kAntidiagonal,
     .stride = 8,
     .selector = PbsSelector::kMaxRatio,
     .threshold = 0.2f},
};

class PbsSelectOfMethod : public ::testing::TestWithParam<std::tuple<Backend, PbsParams>> {
 protected:
  const Backend& backend() const { return std::get<Backend>(GetParam()); }
  PbsParams params(int32_t segment = 256) const {
    PbsParams params = std::get<PbsParams>(GetParam());
    params.segment = segment;
    return params;
  }
  const Stream stream_ = stream_of(backend());
};

INSTANTIATE_TEST_SUITE_P(Methods, PbsSelectOfMethod,
                         ::testing::Combine(::testing::ValuesIn(backends()),
                                            ::testing::ValuesIn(kMethods)),
                         [](const auto& test) {
                           return std::get<Backend>(test.param).name + "_" +
                                  name_of(std::get<PbsParams>(test.param));
                         });

TEST_P(PbsSelectOfMethod, MatchesTheReference) {
  for (const PbsJob& job : {job_of(0, 1), job_of(0, 257), job_of(0, 1023), early_job(0, 1024),
                            job_of(1024, 1025), job_of(1024, 2499, 512)}) {
    for (int32_t segment : {128, 256}) {
      SCOPED_TRACE(testing::Message() << job.begin << ".." << job.end << " S " << segment);
      PbsCase pbs(stream_, kDemo, job, params(segment));
      expect_selected(pbs);
    }
  }
}

TEST_P(PbsSelectOfMethod, ARangeOfBlocksGivesTheBitsOfTheWhole) {
  const Stream one_thread = stream_of(backend(), 1);
  PbsCase whole(stream_, kDemo, job_of(1024, 1999), params());
  PbsCase parts(one_thread, kDemo, job_of(1024, 1999), params());
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
  PbsCase much(stream_, kDemo, job_of(1024, 1999), params());
  PbsCase little(stream_, kDemo, job_of(1024, 1999), params());
  much.order();
  little.order();
  little.limit_scratch(200'000);  // a few query blocks at a time
  EXPECT_EQ(much.select(), little.select());
  EXPECT_EQ(much.kernel_taken(), little.kernel_taken());
}

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},  {4, 1, 128, DType::kF32},  {7, 1, 64, DType::kBF16},
    {8, 1, 64, DType::kBF16}, {8, 2, 128, DType::kBF16}, {4, 4, 64, DType::kF32},
    {2, 2, 64, DType::kBF16}, {7, 1, 128, DType::kBF16}, {5, 1, 128, DType::kBF16},
};

class PbsSelectOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const Stream stream_ = stream_of(GetParam().backend);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PbsSelectOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PbsSelectOfShape, MatchesTheReference) {
  for (const PbsParams& params :
       {PbsParams{.threshold = 0.6f}, PbsParams{.scorer = PbsScorer::kMean, .threshold = 0.7f},
        PbsParams{.scorer = PbsScorer::kAntidiagonal, .stride = 8, .threshold = 0.7f},
        PbsParams{.scorer = PbsScorer::kAntidiagonal, .stride = 16, .threshold = 0.7f}}) {
    PbsCase pbs(stream_, GetParam().shape, job_of(1024, 1667), params);
    expect_selected(pbs);
  }
}

class PbsSelect : public ::testing::TestWithParam<Backend> {
 protected:
  const Stream stream_ = stream_of(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Backends, PbsSelect, ::testing::ValuesIn(backends()), backend_name);

// More key blocks than fit one tile of a GPU's products or one word of the mask.
TEST_P(PbsSelect, ALongContextMatchesTheReference) {
  constexpr AttentionShape kSmall{2, 1, 64, DType::kBF16};
  constexpr AttentionShape kWide{8, 2, 128, DType::kBF16};
  for (const AttentionShape& shape : {kSmall, kWide}) {
    for (const int32_t begin : {9'216, 33'792}) {
      PbsCase pbs(stream_, shape, job_of(begin, begin + 457), {.threshold = 0.6f});
      expect_selected(pbs);
    }
    for (int32_t stride : {8, 16}) {
      PbsCase pbs(stream_, shape, job_of(9216, 9673),
                  {.scorer = PbsScorer::kAntidiagonal, .stride = stride, .threshold = 0.7f});
      expect_selected(pbs);
    }
  }
  PbsCase mean(stream_, kSmall, job_of(9216, 9673),
               {.scorer = PbsScorer::kMean, .threshold = 0.7f});
  expect_selected(mean);
}

// The second on both sides of the most key blocks whose weights a GPU chooses from in registers.
TEST_P(PbsSelect, AVeryLongContextMatchesTheReference) {
  constexpr AttentionShape kSmall{2, 1, 64, DType::kBF16};
  for (const PbsJob& job : {early_job(66'048, 66'560), early_job(130'816, 132'096)}) {
    PbsCase pbs(stream_, kSmall, job, {.threshold = 0.6f});
    expect_selected(pbs);
  }
}

// Several tiles of query rows by several of key blocks; the first rows skip the last blocks.
TEST_P(PbsSelect, ALongJobMatchesTheReference) {
  for (const PbsScorer scorer : {PbsScorer::kQuery, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, kDemo, job_of(0, 6400), {.scorer = scorer, .threshold = 0.6f});
    expect_selected(pbs);
  }
}

// More tiles of products than a GPU's multiprocessors work on at a time.
TEST_P(PbsSelect, ManyHeadsOfALongContextMatchTheReference) {
  constexpr AttentionShape kManyHeads{16, 16, 64, DType::kBF16};
  for (const PbsScorer scorer : {PbsScorer::kQuery, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, kManyHeads, job_of(9216, 9673), {.scorer = scorer, .threshold = 0.7f});
    expect_selected(pbs);
  }
}

// Also where the first segment carries all the weight that float32 can tell from 1.
TEST_P(PbsSelect, ThresholdOfOneTakesEveryBlock) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 2048, rng);
  std::ranges::fill(sequence.q.data, 1.0);
  for (int64_t t = 0; t < 256; ++t) {
    for (int64_t h = 0; h < 2; ++h) std::ranges::fill(sequence.k.at(t, h), 8.0);
  }
  for (PbsScorer scorer : {PbsScorer::kQuery, PbsScorer::kMean, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, kDemo, job_of(1024, 1999), {.scorer = scorer, .threshold = 1.f}, sequence);
    pbs.order();
    EXPECT_EQ(pbs.select(), num_causal_blocks({1024, 1999}, 6));
  }
}

// The smallest threshold leaves the heaviest block beside those that are always taken.
TEST_P(PbsSelect, TheSinkIsAlwaysTakenAndSpendsNothing) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 2048, rng);
  std::ranges::fill(sequence.q.data, 1.0);
  for (int64_t t = 0; t < 256; ++t) {  // draws all the mass that there is
    for (int64_t h = 0; h < 2; ++h) std::ranges::fill(sequence.k.at(t, h), 0.5);
  }
  for (const bool sink_free : {true, false}) {
    PbsCase pbs(stream_, kDemo, early_job(1024, 2048),
                {.threshold = 1e-6f, .sink = 2, .sink_free = sink_free, .dense_tail = 0}, sequence);
    pbs.order();
    EXPECT_EQ(pbs.select(), 6 * 8 * (sink_free ? 3 : 2) + 6 * 12);  // own segments: 1 or 2
    for (const auto& head : pbs.kernel_taken()) {
      for (const auto& bits : head) {
        EXPECT_TRUE(bits[0] && bits[1]);
        EXPECT_EQ(std::ranges::count(bits, true), sink_free ? 3 : 2);
      }
    }
  }
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
  for (PbsScorer scorer : {PbsScorer::kQuery, PbsScorer::kMean, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, kDemo, job_of(1024, 1280),
                {.scorer = scorer, .threshold = 0.6f, .sink_free = false, .dense_tail = 0},
                sequence);
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
