// Step 2 of PBS: which blocks are taken.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/pbs_case.h"
#include "tests/kernels/pbs_selection.h"

namespace pbserve::test {
namespace {

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

PbsParams max_ratio(PbsScorer scorer, float threshold, PbsParams others = {}) {
  others.scorer = scorer;
  others.selector = PbsSelector::kMaxRatio;
  others.threshold = threshold;
  return others;
}

const PbsParams kMethods[] = {
    {},
    {.threshold = 0.5f},
    {.threshold = 0.8f, .sink = 0, .local = 1, .dense_tail = 0},
    {.threshold = 0.6f, .sink_free = true, .dense_tail = 1},
    top_p(PbsScorer::kQuery, 0.7f),
    top_p(PbsScorer::kQuery, 0.4f),
    top_p(PbsScorer::kQuery, 0.6f, {.sink = 0, .dense_tail = 0}),
    top_p(PbsScorer::kQuery, 0.6f, {.sink = 3, .local = 1, .sink_free = true}),
    top_p(PbsScorer::kQuery, 0.7f, {.local = 2, .dense_tail = 1}),
    max_ratio(PbsScorer::kQuery, 0.2f),
    top_p(PbsScorer::kMean, 0.9f),
    top_p(PbsScorer::kMean, 0.5f, {.sink_free = true}),
    max_ratio(PbsScorer::kMean, 0.3f),
    top_p(PbsScorer::kAntidiagonal, 0.9f, {.stride = 8}),
    top_p(PbsScorer::kAntidiagonal, 0.7f, {.stride = 16}),
    max_ratio(PbsScorer::kAntidiagonal, 0.2f, {.stride = 8}),
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
  for (const PbsParams& params : {top_p(PbsScorer::kQuery, 0.6f), top_p(PbsScorer::kMean, 0.7f),
                                  top_p(PbsScorer::kAntidiagonal, 0.7f, {.stride = 8}),
                                  top_p(PbsScorer::kAntidiagonal, 0.7f, {.stride = 16})}) {
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
      PbsCase pbs(stream_, shape, job_of(begin, begin + 457), top_p(PbsScorer::kQuery, 0.6f));
      expect_selected(pbs);
    }
    for (int32_t stride : {8, 16}) {
      PbsCase pbs(stream_, shape, job_of(9216, 9673),
                  top_p(PbsScorer::kAntidiagonal, 0.7f, {.stride = stride}));
      expect_selected(pbs);
    }
  }
  PbsCase mean(stream_, kSmall, job_of(9216, 9673), top_p(PbsScorer::kMean, 0.7f));
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
    PbsCase pbs(stream_, kDemo, job_of(0, 6400), top_p(scorer, 0.6f));
    expect_selected(pbs);
  }
}

// More tiles of products than a GPU's multiprocessors work on at a time.
TEST_P(PbsSelect, ManyHeadsOfALongContextMatchTheReference) {
  constexpr AttentionShape kManyHeads{16, 16, 64, DType::kBF16};
  for (const PbsScorer scorer : {PbsScorer::kQuery, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, kManyHeads, job_of(9216, 9673), top_p(scorer, 0.7f));
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
  for (const PbsParams& params :
       {PbsParams{.threshold = 1.f}, top_p(PbsScorer::kQuery, 1.f), top_p(PbsScorer::kMean, 1.f),
        top_p(PbsScorer::kAntidiagonal, 1.f)}) {
    PbsCase pbs(stream_, kDemo, job_of(1024, 1999), params, sequence);
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
    PbsCase pbs(
        stream_, kDemo, early_job(1024, 2048),
        top_p(PbsScorer::kQuery, 1e-6f, {.sink = 2, .sink_free = sink_free, .dense_tail = 0}),
        sequence);
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
    PbsCase pbs(stream_, kDemo, job_of(1024, 1280), top_p(scorer, 0.6f, {.dense_tail = 0}),
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
