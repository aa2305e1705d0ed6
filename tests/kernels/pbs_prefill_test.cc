// Step 4 of PBS, and the steps together.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {
namespace {

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},  {4, 1, 64, DType::kBF16},  {7, 1, 128, DType::kBF16},
    {8, 1, 64, DType::kF32},  {4, 4, 128, DType::kF32},  {6, 2, 64, DType::kBF16},
    {2, 2, 64, DType::kBF16}, {8, 2, 128, DType::kBF16},
};

void run_all(PbsCase& pbs) {
  pbs.order();
  pbs.select();
  pbs.prefill();
}

void expect_near(const Tensor& actual, const Tensor& expected, const PbsCase& pbs) {
  const double two_roundings = pbs.shape.dtype == DType::kBF16 ? 0x1p-7 : 0.;
  for (int64_t i = 0; i < expected.numel(); ++i) {
    const double value = value_at(expected, i);
    const double allowed = 1e-5 + two_roundings * std::abs(value) + 2 * pbs.arithmetic_error();
    ASSERT_NEAR(value_at(actual, i), value, allowed) << i;
  }
}

class PbsPrefillOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const AttentionShape& shape() const { return GetParam().shape; }
  const Stream stream_ = stream_of(GetParam().backend);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PbsPrefillOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PbsPrefillOfShape, MatchesTheReferenceOnItsOwnMask) {
  for (int32_t segment : {128, 256}) {
    PbsCase pbs(stream_, shape(), early_job(512, 2048, 512),
                {.segment = segment, .threshold = .5f});
    pbs.order();
    EXPECT_LT(pbs.select(), num_causal_blocks({pbs.job.begin, pbs.job.end}, shape().num_q_heads));
    pbs.prefill();
    EXPECT_TRUE(output_matches(pbs, 31));
  }
}

// Nothing of the kernel but its inputs: orders and masks of the oracle's own. Near ties may differ,
// and such a difference moves the result by no more than the weight of what was exchanged.
TEST_P(PbsPrefillOfShape, MatchesTheReferenceEndToEnd) {
  for (const PbsParams& params :
       {PbsParams{.threshold = 0.8f}, top_p(PbsScorer::kQuery, 0.6f), top_p(PbsScorer::kMean, 0.6f),
        top_p(PbsScorer::kAntidiagonal, 0.6f)}) {
    PbsCase pbs(stream_, shape(), job_of(1024, 1683), params);
    run_all(pbs);
    const auto& problem = pbs.problem();
    const auto order = reference::order_ref(problem, reference::key_scores_ref(problem));
    const auto moments = reference::block_moments_ref(problem, order, pbs.shape.dtype);
    const auto taken =
        reference::select_ref(problem, reference::weights_ref(problem, order, moments));
    int64_t differing = 0, rows = 0;
    for (int64_t row = 0; row < pbs.job.num_rows(); row += 37) {
      for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
        const auto expected = reference::pbs_row_ref(problem, order, taken, h, row);
        differing += !close_to(expected, pbs.out(), row, h, pbs.arithmetic_error());
        ++rows;
      }
    }
    EXPECT_LE(differing * 20, rows) << "of " << rows;
  }
}

// Whatever the order of the pages.
TEST_P(PbsPrefillOfShape, ThresholdOfOneIsDenseAttention) {
  PbsCase pbs(stream_, shape(), early_job(512, 1024, 512), {.threshold = 1.f, .dense_tail = 0});
  run_all(pbs);
  expect_near(pbs.out(), pbs.dense().view(), pbs);
}

// Permuted pages are pages: decode reads them as they are, and so does dense prefill.
TEST_P(PbsPrefillOfShape, DecodeOverOrderedPagesIsDenseAttention) {
  PbsCase pbs(stream_, shape(), job_of(1024, 1801), {});
  pbs.order();
  const HostTensor dense = pbs.dense();
  const int64_t last = pbs.job.num_rows() - 1;
  expect_near(pbs.decode_last_row().view(), dense.view().rows(last, last + 1), pbs);
}

// With every page taken and in natural order the sparse kernel walks the dense one's tiles.
TEST_P(PbsPrefillOfShape, FullMaskAndNaturalOrderIsDenseBitwise) {
  const PbsParams params{.order = kernels::PbsOrder::kNatural, .threshold = 1.f};
  PbsCase pbs(stream_, shape(), job_of(0, 900), params);
  run_all(pbs);
  EXPECT_TRUE(same_bits(pbs.out(), pbs.dense().view()));
}

TEST_P(PbsPrefillOfShape, SlicesAndThreadsDoNotChangeABit) {
  const Stream one_thread = stream_of(GetParam().backend, 1);
  PbsCase whole(stream_, shape(), job_of(512, 1500, 512), {.threshold = 0.7f});
  PbsCase parts(one_thread, shape(), job_of(512, 1500, 512), {.threshold = 0.7f});
  run_all(whole);
  parts.order();
  for (const int64_t begin : {7, 3, 1, 0}) {
    const int64_t end = begin == 7 ? 8 : begin == 3 ? 7 : begin == 1 ? 3 : 1;
    parts.select(begin, end);
    parts.prefill(begin, end);
  }
  EXPECT_TRUE(same_bits(whole.out(), parts.out()));
}

class PbsPrefill : public ::testing::TestWithParam<Backend> {
 protected:
  const Stream stream_ = stream_of(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Backends, PbsPrefill, ::testing::ValuesIn(backends()), backend_name);

// A span's result depends on tokens before its end only, and on whether the prompt ends there.
TEST_P(PbsPrefill, ALongerPromptDoesNotChangeASpan) {
  std::mt19937 rng(9);
  const Sequence sequence = planted_sequence(kDemo, 4096, rng);
  PbsCase alone(stream_, kDemo, early_job(1024, 2048), {}, sequence);
  PbsCase with_next(stream_, kDemo, early_job(1024, 4096), {}, sequence);
  run_all(alone);
  run_all(with_next);
  EXPECT_TRUE(same_bits(alone.out(), with_next.out().rows(0, 1024)));
}

// The question stands at the end: its blocks see everything.
TEST_P(PbsPrefill, TheDenseTailIsDenseAttention) {
  PbsCase pbs(stream_, kDemo, job_of(1024, 2000), {.threshold = 0.2f, .dense_tail = 2});
  run_all(pbs);
  const int64_t first = 14 * kPbsBlock - 1024;  // blocks 14 and 15 of 0..15
  const int64_t last = pbs.job.num_rows();
  expect_near(pbs.out().rows(first, last), pbs.dense().view().rows(first, last), pbs);
}

// What is left of a span after a reused prefix that ends inside it.
TEST_P(PbsPrefill, AJobMayBeginInsideASpan) {
  PbsCase pbs(stream_, kDemo, job_of(1280, 2900), {.threshold = 0.5f});
  run_all(pbs);
  EXPECT_TRUE(output_matches(pbs, 97));
}

class PbsPrefillOfLength : public ::testing::TestWithParam<std::tuple<Backend, int32_t>> {
 protected:
  const Backend& backend() const { return std::get<Backend>(GetParam()); }
  const Stream stream_ = stream_of(backend());
};

INSTANTIATE_TEST_SUITE_P(Lengths, PbsPrefillOfLength,
                         ::testing::Combine(::testing::ValuesIn(backends()),
                                            ::testing::Values(1, 127, 128, 129, 255, 256, 257, 1023,
                                                              1024, 1025, 1999, 3 * 1024 + 17,
                                                              8 * 1024 - 1, 8 * 1024 + 1)),
                         [](const auto& test) {
                           return std::get<Backend>(test.param).name + "_" +
                                  std::to_string(std::get<int32_t>(test.param));
                         });

// A prompt in one job and as the paper's one span, with everything that could be read by mistake
// poisoned.
TEST_P(PbsPrefillOfLength, MatchesTheReference) {
  const AttentionShape shape{4, 1, 64, widest_dtype(backend())};
  const int32_t len = std::get<int32_t>(GetParam());
  for (const int32_t span_len : {1024, 0}) {
    if (span_len == 0 && len > 2048) continue;
    SCOPED_TRACE(testing::Message() << "C " << span_len);
    PbsCase pbs(stream_, shape, job_of(0, len, span_len), {.threshold = 0.5f});
    run_all(pbs);
    EXPECT_TRUE(output_matches(pbs, len > 2048 ? 499 : 97));
  }
}

// Masks of more than 32 words and page tables that are loaded again: beyond 131,072 and 262,144.
TEST_P(PbsPrefill, ContextsBeyondAHundredThousandTokens) {
  const AttentionShape shape{1, 1, 64, widest_dtype(GetParam())};
  std::mt19937 rng(4);
  const Sequence sequence = planted_sequence(shape, 263'000, rng);
  for (const int32_t begin : {131'072, 262'144}) {
    SCOPED_TRACE(begin);
    PbsCase pbs(stream_, shape, job_of(begin, begin + 700), {.threshold = 0.6f}, sequence);
    run_all(pbs);
    const auto order = pbs.kernel_order();
    const auto weights = reference::weights_ref(pbs.problem(), order, pbs.kernel_moments());
    const auto expected = reference::select_ref(pbs.problem(), weights)[0];
    const auto taken = pbs.kernel_taken()[0];
    for (size_t block = 0; block < taken.size(); ++block) {
      int64_t differing = 0;  // near ties
      for (size_t j = 0; j < taken[block].size(); ++j) {
        differing += taken[block][j] != expected[block][j];
      }
      EXPECT_LE(differing, 4) << "block " << block;
    }
    EXPECT_TRUE(output_matches(pbs, 233));
  }
}

}  // namespace
}  // namespace pbserve::test
