// Step 2 of PBS with scorer mass and its selector.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/pbs_case.h"
#include "tests/kernels/pbs_selection.h"

namespace pbserve::test {
namespace {

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},  {4, 1, 128, DType::kF32},  {7, 1, 64, DType::kF32},
    {1, 1, 128, DType::kF32}, {8, 1, 128, DType::kF32},  {6, 2, 64, DType::kF32},
    {2, 2, 64, DType::kBF16}, {4, 1, 64, DType::kBF16},  {7, 1, 128, DType::kBF16},
    {8, 1, 64, DType::kBF16}, {8, 2, 128, DType::kBF16}, {3, 1, 128, DType::kBF16},
};

class PbsMassOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const Stream stream_ = stream_of(GetParam().backend);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PbsMassOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PbsMassOfShape, MatchesTheReference) {
  for (const PbsParams& params : {PbsParams{}, PbsParams{.segment = 128, .threshold = 0.8f},
                                  PbsParams{.threshold = 0.5f, .sink = 0, .dense_tail = 0},
                                  PbsParams{.threshold = 0.7f, .local = 1, .dense_tail = 0}}) {
    SCOPED_TRACE(name_of(params));
    PbsCase pbs(stream_, GetParam().shape, job_of(1024, 1667), params);
    expect_selected(pbs);
  }
}

// One sampled query and two, the last of them the block's last or not, and three.
TEST_P(PbsMassOfShape, ShortLastBlocksMatchTheReference) {
  for (const int32_t segment : {128, 256}) {
    for (const int32_t rows : {1, 2, kMassStride, kMassStride + 1, 2 * kMassStride + 1}) {
      SCOPED_TRACE(testing::Message() << rows << " rows S " << segment);
      PbsCase pbs(stream_, GetParam().shape, job_of(1024, 1024 + 3 * kPbsBlock + rows),
                  {.segment = segment, .threshold = 0.6f, .sink = 0, .dense_tail = 0});
      expect_selected(pbs);
    }
  }
}

class PbsMass : public ::testing::TestWithParam<Backend> {
 protected:
  const Stream stream_ = stream_of(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Backends, PbsMass, ::testing::ValuesIn(backends()), backend_name);

// More key blocks than fit one tile of products or one word of the mask; many tiles of query rows.
TEST_P(PbsMass, LongContextsAndJobsMatchTheReference) {
  constexpr AttentionShape kSmall{2, 1, 64, DType::kBF16};
  constexpr AttentionShape kWide{8, 2, 128, DType::kBF16};
  constexpr AttentionShape kManyHeads{16, 16, 64, DType::kBF16};
  PbsCase small(stream_, kSmall, job_of(33'792, 34'249), {.threshold = 0.8f});
  PbsCase wide(stream_, kWide, job_of(9'216, 9'673), {.threshold = 0.8f});
  PbsCase many_heads(stream_, kManyHeads, job_of(9'216, 9'673), {});
  PbsCase job(stream_, kDemo, job_of(0, 6'400), {});
  for (PbsCase* pbs : {&small, &wide, &many_heads, &job}) expect_selected(*pbs);
}

constexpr int64_t kChannel = 5;  // of a needle: far off in its key, looked for by its queries

void plant_key(Sequence& sequence, int64_t position) {
  for (int64_t h = 0; h < sequence.k.num_heads; ++h) sequence.k.at(position, h)[kChannel] = 16;
}

void plant_query(Sequence& sequence, int64_t position) {
  for (int64_t h = 0; h < sequence.q.num_heads; ++h) sequence.q.at(position, h)[kChannel] = 20;
}

// The candidate that holds an earlier key of a query head.
size_t block_of(const PbsCase& pbs, int64_t head, int64_t key) {
  const auto& places = pbs.problem().earlier[head / pbs.problem().group()];
  return static_cast<size_t>(std::ranges::find(places, key) - places.begin()) / kPbsBlock;
}

// One key of 128 hardly moves their mean: it shows in their variance.
TEST_P(PbsMass, FindsANeedleAndTakesNothingElse) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 2048, rng);
  plant_key(sequence, 300);
  for (int64_t t = 1024; t < 1024 + kPbsBlock; ++t) plant_query(sequence, t);
  PbsCase pbs(stream_, kDemo, early_job(1024, 2048), {.threshold = 0.5f, .sink = 0}, sequence);
  pbs.order();
  pbs.select();
  for (int64_t h = 0; h < kDemo.num_q_heads; ++h) {
    std::vector<bool> needle_alone(8);
    needle_alone[block_of(pbs, h, 300)] = true;
    EXPECT_EQ(pbs.kernel_taken()[h][0], needle_alone) << h;
  }
}

// The other 15 sampled queries look everywhere, and the mean of the shares would lose the one.
TEST_P(PbsMass, FindsTheNeedleOfOneQuery) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 4096, rng);
  plant_key(sequence, 300);
  plant_query(sequence, 3072 + kMassStride);
  PbsCase pbs(stream_, kDemo, early_job(3072, 4096), {.threshold = 0.5f, .sink = 0}, sequence);
  pbs.order();
  pbs.select();
  for (int64_t h = 0; h < kDemo.num_q_heads; ++h) {
    EXPECT_TRUE(pbs.kernel_taken()[h][0][block_of(pbs, h, 300)]) << h;
  }
}

// Queries that look everywhere alike get by with what is taken anyway.
TEST_P(PbsMass, DiffuseQueriesNeedNothing) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 4352, rng);
  std::ranges::fill(sequence.q.data, 0.0);
  PbsCase pbs(stream_, kDemo, early_job(4096, 4352, 256), {.threshold = 0.5f}, sequence);
  pbs.order();
  EXPECT_EQ(pbs.select(), 6 * (2 * 1 + 1 + 2));  // the sink twice, and the own segment
}

// Earlier keys are nothing beside those of the own segment.
TEST_P(PbsMass, TheOwnSegmentTakesItsShare) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 2048, rng);
  for (int64_t t = 1024; t < 1280; ++t) plant_key(sequence, t), plant_query(sequence, t);
  PbsCase pbs(stream_, kDemo, early_job(1024, 2048), {.sink = 0}, sequence);
  pbs.order();
  EXPECT_EQ(pbs.select(0, 2), 6 * (1 + 2));
}

}  // namespace
}  // namespace pbserve::test
