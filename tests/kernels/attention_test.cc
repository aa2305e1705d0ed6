// Dense prefill: right against the oracle, and the same bits however the work is cut.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/attention_case.h"

namespace pbserve::test {
namespace {

using kernels::PrefillSegment;

struct OneSequence {
  OneSequence(const AttentionShape& attention_shape, int64_t len, unsigned seed = 1)
      : shape(attention_shape),
        rng(seed),
        sequence(planted_sequence(shape, len, rng)),
        cache(shape, {&sequence, 1}),
        q(to_tensor(sequence.q, shape.dtype)) {}

  HostTensor prefill(const Stream& stream, const std::vector<PrefillSegment>& segments) const {
    return run_prefill(shape, DeviceCache(cache, stream), q, segments);
  }

  AttentionShape shape;
  std::mt19937 rng;
  Sequence sequence;
  PagedCache cache;
  HostTensor q;
};

// Rows [0, num_rows) of a sequence's prefill.
::testing::AssertionResult prefill_matches(const OneSequence& one, int64_t num_rows,
                                           const Tensor& out, const Backend& backend) {
  const auto expected =
      reference::attention_ref(rows_of(one.sequence.q, 0, num_rows), one.sequence.k, one.sequence.v,
                               0, double(one.shape.scale()));
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t h = 0; h < one.shape.num_q_heads; ++h) {
      auto result = close_to(expected.at(row, h), out, row, h, prefill_error(backend));
      if (!result) return result;
    }
  }
  return ::testing::AssertionSuccess();
}

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},   {4, 1, 64, DType::kBF16}, {7, 1, 128, DType::kBF16},
    {8, 1, 64, DType::kF32},   {4, 4, 128, DType::kF32}, {6, 2, 64, DType::kBF16},
    {3, 3, 16, DType::kF32},   {2, 1, 48, DType::kBF16}, {2, 1, 256, DType::kF32},
    {2, 2, 128, DType::kBF16},
};

class PrefillOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const AttentionShape& shape() const { return GetParam().shape; }
  const Backend& backend() const { return GetParam().backend; }
  Stream stream_ = stream_of(GetParam().backend);
};
INSTANTIATE_TEST_SUITE_P(Shapes, PrefillOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PrefillOfShape, MatchesTheReference) {
  for (int32_t len : {1, 2, 127, 128, 129, 255, 256, 257, 311}) {
    SCOPED_TRACE(len);
    const OneSequence one(shape(), len);
    const auto out = one.prefill(stream_, {{0, len, 0, 0}});
    ASSERT_TRUE(prefill_matches(one, len, out.view(), backend()));
  }
}

TEST_P(PrefillOfShape, SlicesGiveTheWhole) {
  const int32_t len = 400;
  const OneSequence one(shape(), len);
  std::vector<PrefillSegment> slices;
  int32_t position = 0;
  for (int32_t rows : {1, 5, 121, 2, 130, 13, 128}) {
    slices.push_back({position, rows, position, 0});
    position += rows;
  }
  ASSERT_EQ(position, len);
  const auto sliced = one.prefill(stream_, slices);
  ASSERT_TRUE(prefill_matches(one, len, sliced.view(), backend()));
  if (stream_.is_cuda()) return;  // the bits are a promise of the CPU
  const auto whole = one.prefill(stream_, {{0, len, 0, 0}});
  EXPECT_TRUE(same_bits(whole.view(), sliced.view()));
}

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

class Prefill : public ::testing::TestWithParam<Backend> {
 protected:
  Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, Prefill, ::testing::ValuesIn(backends()), backend_name);

TEST_P(Prefill, KeysAfterTheLastRowAreNotRead) {
  OneSequence one(kDemo, 300);
  const auto expected = one.prefill(stream_, {{0, 300, 0, 0}});
  one.cache.poison_keys(0, 200, 300);
  const auto out = one.prefill(stream_, {{0, 200, 0, 0}});
  ASSERT_TRUE(prefill_matches(one, 200, out.view(), GetParam()));
  if (stream_.is_cuda()) return;
  EXPECT_TRUE(same_bits(out.view().rows(0, 200), expected.view().rows(0, 200)));
}

TEST_P(Prefill, IsTheSameTwice) {
  const OneSequence one(kDemo, 700);
  const Stream other = stream_of(GetParam(), 3);  // on the CPU with other threads
  const auto first = one.prefill(stream_, {{0, 700, 0, 0}});
  const auto second = one.prefill(other, {{0, 700, 0, 0}});
  EXPECT_TRUE(same_bits(first.view(), second.view()));
}

TEST_P(Prefill, RowsOutsideEverySegmentAreNotWritten) {
  const OneSequence one(kDemo, 64);
  const auto out = one.prefill(stream_, {{10, 20, 10, 0}});
  const int64_t width = 6 * 64;
  for (int64_t i = 0; i < out.view().numel(); ++i) {
    const bool inside = i >= 10 * width && i < 30 * width;
    ASSERT_EQ(value_at(out.view(), i) != kUnwritten, inside) << i;
  }
}

// Sequences of all kinds of lengths, in an order of rows that is not that of sequences.
TEST_P(Prefill, InABatchItGivesTheBitsOfAlone) {
  std::mt19937 rng(7);
  std::vector<Sequence> sequences;
  for (int64_t len : {129, 1, 383, 128, 257}) {
    sequences.push_back(planted_sequence(kDemo, len, rng));
  }
  const PagedCache cache(kDemo, sequences);
  HostTensor q(kDemo.dtype, {898, 6, 64});
  std::vector<PrefillSegment> segments;
  int32_t row = 898;
  for (const Sequence& sequence : sequences) {
    const auto len = static_cast<int32_t>(sequence.q.num_tokens);
    row -= len;
    segments.push_back({row, len, 0, static_cast<int32_t>(segments.size())});
    const auto own = to_tensor(sequence.q, kDemo.dtype);
    std::copy_n(own.view().as<BF16>(), own.view().numel(),
                q.view().rows(row, row + len).as<BF16>());
  }
  ASSERT_EQ(row, 0);
  const auto together = run_prefill(kDemo, DeviceCache(cache, stream_), q, segments);
  for (size_t b = 0; b < segments.size(); ++b) {
    SCOPED_TRACE(b);
    const PrefillSegment& s = segments[b];
    const PagedCache own_cache(kDemo, {&sequences[b], 1});
    const std::vector<PrefillSegment> own_segment = {{0, s.num_rows, 0, 0}};
    const auto alone = run_prefill(kDemo, DeviceCache(own_cache, stream_),
                                   to_tensor(sequences[b].q, kDemo.dtype), own_segment);
    EXPECT_TRUE(
        same_bits(alone.view(), together.view().rows(s.row_begin, s.row_begin + s.num_rows)));
  }
}

}  // namespace
}  // namespace pbserve::test
