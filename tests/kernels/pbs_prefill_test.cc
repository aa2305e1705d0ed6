// Step 3 of PBS, and the three steps together.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {
namespace {

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},  {4, 1, 64, DType::kBF16}, {7, 1, 128, DType::kBF16},
    {8, 1, 64, DType::kF32},  {4, 4, 128, DType::kF32}, {6, 2, 64, DType::kBF16},
    {2, 2, 64, DType::kBF16},
};

class PbsPrefillOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const AttentionShape& shape() const { return GetParam().shape; }
  const Stream stream_ = stream_of(GetParam().backend);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PbsPrefillOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PbsPrefillOfShape, MatchesTheReferenceOnItsOwnMask) {
  for (int32_t segment : {128, 256}) {
    PbsCase pbs(stream_, shape(), {512, 937}, {.segment = segment, .threshold = 0.6f});
    pbs.order();
    EXPECT_LT(pbs.select(), num_causal_blocks(pbs.span, pbs.shape.num_q_heads));
    pbs.prefill();
    EXPECT_TRUE(output_matches(pbs, 11));
  }
}

// Nothing of the kernel but its inputs: orders and masks of the oracle's own. Near ties may differ,
// and such a difference moves the result by no more than the weight of what was exchanged.
TEST_P(PbsPrefillOfShape, MatchesTheReferenceEndToEnd) {
  for (PbsScorer scorer : {PbsScorer::kMean, PbsScorer::kAntidiagonal}) {
    PbsCase pbs(stream_, shape(), {1024, 1299}, {.scorer = scorer, .threshold = 0.75f});
    pbs.order();
    pbs.select();
    pbs.prefill();
    const auto& problem = pbs.problem();
    const auto order = reference::order_ref(problem, reference::key_scores_ref(problem));
    const auto taken =
        reference::select_ref(problem, order, reference::weights_ref(problem, order));
    int64_t differing = 0, rows = 0;
    for (int64_t row = 0; row < pbs.span.num_rows(); row += 37) {
      for (int64_t h = 0; h < pbs.shape.num_q_heads; ++h) {
        const auto expected = reference::pbs_row_ref(problem, order, taken, h, row);
        differing += !close_to(expected, pbs.out(), row, h, pbs.arithmetic_error());
        ++rows;
      }
    }
    EXPECT_LE(differing * 20, rows) << "of " << rows;
  }
}

TEST_P(PbsPrefillOfShape, ThresholdOfOneIsDenseAttention) {
  PbsCase pbs(stream_, shape(), {512, 900}, {.threshold = 1.f});
  pbs.order();
  pbs.select();
  pbs.prefill();
  const HostTensor dense = pbs.dense();
  const double two_roundings = pbs.shape.dtype == DType::kBF16 ? 0x1p-7 : 0.;
  for (int64_t i = 0; i < dense.view().numel(); ++i) {
    const double expected = value_at(dense.view(), i);
    const double allowed = 1e-5 + two_roundings * std::abs(expected) + 2 * pbs.arithmetic_error();
    ASSERT_NEAR(value_at(pbs.out(), i), expected, allowed) << i;
  }
}

// With every block taken and the identity order the sparse kernel walks the dense one's tiles.
TEST_P(PbsPrefillOfShape, FullMaskAndIdentityOrderIsDenseBitwise) {
  PbsCase pbs(stream_, shape(), {512, 900}, {.threshold = 1.f});
  const PbsPlan& plan = pbs.plan();
  const Tensor keys[] = {plan.k, plan.v};
  for (int64_t h = 0; h < pbs.shape.num_kv_heads; ++h) {
    for (int which : {0, 1}) {
      const Tensor to = keys[which].at(h);
      const auto from = to_tensor(which == 0 ? pbs.problem().k : pbs.problem().v, to.dtype);
      const size_t row_bytes = size_t(pbs.shape.head_dim) * size_of(to.dtype);
      for (int64_t t = 0; t < 768; ++t) {
        std::memcpy(to.rows(t, t + 1).data, from.view().at(t).rows(h, h + 1).data, row_bytes);
      }
    }
  }
  pbs.upload_plan();
  pbs.prefill();  // the mask is filled with ones
  EXPECT_TRUE(same_bits(pbs.out(), pbs.dense().view()));
}

TEST_P(PbsPrefillOfShape, SlicesAndThreadsDoNotChangeABit) {
  const Stream one_thread = stream_of(GetParam().backend, 1);
  PbsCase whole(stream_, shape(), {512, 1500}, {.threshold = 0.7f});
  PbsCase parts(one_thread, shape(), {512, 1500}, {.threshold = 0.7f});
  whole.order();
  whole.select();
  whole.prefill(0, 8);
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

// A span's result depends on tokens before its end only.
TEST_P(PbsPrefill, ALongerPromptDoesNotChangeASpan) {
  std::mt19937 rng(9);
  const Sequence sequence = planted_sequence(kDemo, 2000, rng);
  Sequence longer = sequence;
  for (int64_t t = 1024; t < 2000; ++t) {
    for (int64_t h = 0; h < 2; ++h) std::ranges::fill(longer.k.at(t, h), 1e30);
  }
  PbsCase a(stream_, kDemo, {512, 1024}, {}, sequence);
  PbsCase b(stream_, kDemo, {512, 1024}, {}, longer);
  for (PbsCase* pbs : {&a, &b}) {
    pbs->order();
    pbs->select();
    pbs->prefill();
  }
  EXPECT_TRUE(same_bits(a.out(), b.out()));
}

class PbsPrefillOfLength : public ::testing::TestWithParam<std::tuple<Backend, int32_t>> {
 protected:
  const Backend& backend() const { return std::get<Backend>(GetParam()); }
  const Stream stream_ = stream_of(backend());
};

INSTANTIATE_TEST_SUITE_P(Lengths, PbsPrefillOfLength,
                         ::testing::Combine(::testing::ValuesIn(backends()),
                                            ::testing::Values(1, 127, 128, 129, 255, 256, 257, 1023,
                                                              1024, 1025, 1999,
                                                              3 * kTestSpan + 17)),
                         [](const auto& test) {
                           return std::get<Backend>(test.param).name + "_" +
                                  std::to_string(std::get<int32_t>(test.param));
                         });

// The last two spans of a prompt, with everything that could be read by mistake poisoned. As one
// span (C = 0, the published method) where the prompt is short enough for the oracle.
TEST_P(PbsPrefillOfLength, MatchesTheReference) {
  const AttentionShape shape{4, 1, 64, widest_dtype(backend())};
  const int32_t len = std::get<int32_t>(GetParam());
  auto spans = spans_of(len, kTestSpan);
  if (spans.size() > 2) spans.erase(spans.begin(), spans.end() - 2);
  if (len > kTestSpan && len < 2048) spans.push_back({0, len});
  for (const PbsSpan span : spans) {
    SCOPED_TRACE(testing::Message() << span.begin << ".." << span.end);
    PbsCase pbs(stream_, shape, span, {.threshold = 0.7f});
    pbs.order();
    pbs.select();
    pbs.prefill();
    EXPECT_TRUE(output_matches(pbs, 97));
  }
}

}  // namespace
}  // namespace pbserve::test
