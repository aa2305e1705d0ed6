// Dense attention, prefill and decode: right against the oracle, and the same bits however the work
// is cut.
#include "kernels/ops/attention.h"

#include <gtest/gtest.h>

#include "tests/kernels/attention_case.h"

namespace pbserve::test {
namespace {

using kernels::from_f32;
using kernels::PrefillSegment;

// Prefills the rows of `segments`, of q [T, Hq, D]; rows no segment names keep the fill value.
HostTensor prefill(const AttentionShape& shape, const PagedCache& cache, const Tensor& q,
                   std::vector<PrefillSegment> segments, int num_threads = 2) {
  HostTensor out(shape.dtype, {q.dim(0), q.dim(1), q.dim(2)});
  const Stream stream = cpu_stream(num_threads);
  prefill_attention({.out = out.view(),
                     .q = q,
                     .k_pages = cache.k_pages(),
                     .v_pages = cache.v_pages(),
                     .block_tables = cache.block_tables(),
                     .segments = segments,
                     .scale = shape.scale()},
                    stream);
  return out;
}

struct OneSequence {
  OneSequence(const AttentionShape& attention_shape, int64_t len, unsigned seed = 1)
      : shape(attention_shape),
        rng(seed),
        sequence(planted_sequence(shape, len, rng)),
        cache(shape, {&sequence, 1}),
        q(to_tensor(sequence.q, shape.dtype)) {}

  AttentionShape shape;
  std::mt19937 rng;
  Sequence sequence;
  PagedCache cache;
  HostTensor q;
};

class AttentionOfShape : public ::testing::TestWithParam<AttentionShape> {};

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionOfShape,
    ::testing::Values(AttentionShape{1, 1, 64, DType::kF32}, AttentionShape{4, 1, 64, DType::kBF16},
                      AttentionShape{7, 1, 128, DType::kBF16},
                      AttentionShape{8, 1, 64, DType::kF32}, AttentionShape{4, 4, 128, DType::kF32},
                      AttentionShape{6, 2, 64, DType::kBF16}, AttentionShape{3, 3, 16, DType::kF32},
                      AttentionShape{2, 1, 48, DType::kBF16},
                      AttentionShape{2, 1, 256, DType::kF32}),
    [](const auto& test) { return test.param.name(); });

TEST_P(AttentionOfShape, PrefillMatchesTheReference) {
  for (int32_t len : {1, 2, 127, 128, 129, 255, 256, 257, 311}) {
    SCOPED_TRACE(len);
    const OneSequence one(GetParam(), len);
    const auto out = prefill(one.shape, one.cache, one.q.view(), {{0, len, 0, 0}});
    const auto expected = reference::attention_ref(one.sequence.q, one.sequence.k, one.sequence.v,
                                                   0, double(one.shape.scale()));
    for (int64_t row = 0; row < len; ++row) {
      for (int64_t h = 0; h < one.shape.num_q_heads; ++h) {
        ASSERT_TRUE(close_to(expected.at(row, h), out.view(), row, h));
      }
    }
  }
}

TEST_P(AttentionOfShape, DecodeOfAPositionIsItsPrefillRow) {
  const int32_t len = 413;
  const OneSequence one(GetParam(), len);
  const auto rows = prefill(one.shape, one.cache, one.q.view(), {{0, len, 0, 0}});
  for (int32_t position : {0, 1, 126, 127, 128, 255, 256, 300, 412}) {
    SCOPED_TRACE(position);
    HostTensor lens(DType::kI32, {1});
    lens.view().as<int32_t>()[0] = position + 1;
    HostTensor out(one.shape.dtype, {1, one.shape.num_q_heads, one.shape.head_dim});
    const Stream stream = cpu_stream(2);
    decode_attention({.out = out.view(),
                      .q = one.q.view().rows(position, position + 1),
                      .k_pages = one.cache.k_pages(),
                      .v_pages = one.cache.v_pages(),
                      .block_tables = one.cache.block_tables(),
                      .context_lens = lens.view(),
                      .scale = one.shape.scale()},
                     stream);
    EXPECT_TRUE(same_bits(out.view(), rows.view().rows(position, position + 1)));
  }
}

TEST_P(AttentionOfShape, SlicesGiveTheBitsOfTheWhole) {
  const int32_t len = 400;
  const OneSequence one(GetParam(), len);
  const auto whole = prefill(one.shape, one.cache, one.q.view(), {{0, len, 0, 0}});
  std::vector<PrefillSegment> slices;
  int32_t position = 0;
  for (int32_t rows : {1, 5, 121, 2, 130, 13, 128}) {
    slices.push_back({position, rows, position, 0});
    position += rows;
  }
  ASSERT_EQ(position, len);
  const auto sliced = prefill(one.shape, one.cache, one.q.view(), slices);
  EXPECT_TRUE(same_bits(whole.view(), sliced.view()));
}

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

TEST(Attention, KeysAfterTheLastRowAreNotRead) {
  OneSequence one(kDemo, 300);
  const auto expected = prefill(one.shape, one.cache, one.q.view(), {{0, 300, 0, 0}});
  one.cache.poison_keys(0, 200, 300);
  const auto out = prefill(one.shape, one.cache, one.q.view(), {{0, 200, 0, 0}});
  EXPECT_TRUE(same_bits(out.view().rows(0, 200), expected.view().rows(0, 200)));
}

TEST(Attention, ResultDoesNotDependOnTheNumberOfThreads) {
  const OneSequence one(kDemo, 700);
  const auto alone = prefill(one.shape, one.cache, one.q.view(), {{0, 700, 0, 0}}, 1);
  const auto shared = prefill(one.shape, one.cache, one.q.view(), {{0, 700, 0, 0}}, 3);
  EXPECT_TRUE(same_bits(alone.view(), shared.view()));
}

TEST(Attention, RowsOutsideEverySegmentAreNotWritten) {
  const OneSequence one(kDemo, 64);
  HostTensor out(kDemo.dtype, {64, 6, 64});
  std::fill_n(out.view().as<BF16>(), out.view().numel(), from_f32<BF16>(7.f));
  const PrefillSegment segment{.row_begin = 10, .num_rows = 20, .position = 10, .sequence = 0};
  prefill_attention({.out = out.view(),
                     .q = one.q.view(),
                     .k_pages = one.cache.k_pages(),
                     .v_pages = one.cache.v_pages(),
                     .block_tables = one.cache.block_tables(),
                     .segments = {&segment, 1},
                     .scale = kDemo.scale()},
                    cpu_stream(2));
  const int64_t width = 6 * 64;
  for (int64_t i = 0; i < out.view().numel(); ++i) {
    const bool inside = i >= 10 * width && i < 30 * width;
    ASSERT_EQ(value_at(out.view(), i) != 7.f, inside) << i;
  }
}

// A batch of sequences of all kinds of lengths, in an order of rows that is not that of sequences.
struct Batch {
  Batch() {
    std::mt19937 rng(7);
    for (int64_t len : lens) sequences.push_back(planted_sequence(kDemo, len, rng));
    cache.emplace_back(kDemo, sequences);
  }

  std::vector<int64_t> lens = {129, 1, 383, 128, 257};
  std::vector<Sequence> sequences;
  std::vector<PagedCache> cache;
};

TEST(Attention, PrefillInABatchGivesTheBitsOfAlone) {
  const Batch batch;
  HostTensor q(kDemo.dtype, {898, 6, 64});
  std::vector<PrefillSegment> segments;
  int32_t row = 898;
  for (size_t b = 0; b < batch.lens.size(); ++b) {
    const auto len = static_cast<int32_t>(batch.lens[b]);
    row -= len;
    segments.push_back({row, len, 0, static_cast<int32_t>(b)});
    const auto own = to_tensor(batch.sequences[b].q, kDemo.dtype);
    std::copy_n(own.view().as<BF16>(), own.view().numel(),
                q.view().rows(row, row + len).as<BF16>());
  }
  ASSERT_EQ(row, 0);
  const auto together = prefill(kDemo, batch.cache[0], q.view(), segments);
  for (size_t b = 0; b < segments.size(); ++b) {
    SCOPED_TRACE(b);
    const PagedCache cache(kDemo, {&batch.sequences[b], 1});
    const PrefillSegment& s = segments[b];
    const Tensor own_q = q.view().rows(s.row_begin, s.row_begin + s.num_rows);
    const auto alone = prefill(kDemo, cache, own_q, {{0, s.num_rows, 0, 0}});
    EXPECT_TRUE(
        same_bits(alone.view(), together.view().rows(s.row_begin, s.row_begin + s.num_rows)));
  }
}

TEST(Attention, DecodeInABatchGivesTheBitsOfAloneAndPaddingIsZero) {
  Batch batch;
  HostTensor q(kDemo.dtype, {5, 6, 64});
  HostTensor lens(DType::kI32, {5});
  HostTensor out(kDemo.dtype, {5, 6, 64});
  for (int64_t b = 0; b < 5; ++b) {
    const int64_t len = batch.lens[b];
    const auto own = to_tensor(rows_of(batch.sequences[b].q, len - 1, len), kDemo.dtype);
    std::copy_n(own.view().as<BF16>(), own.view().numel(), q.view().rows(b, b + 1).as<BF16>());
    lens.view().as<int32_t>()[b] = b == 3 ? 0 : static_cast<int32_t>(len);
  }
  decode_attention({.out = out.view(),
                    .q = q.view(),
                    .k_pages = batch.cache[0].k_pages(),
                    .v_pages = batch.cache[0].v_pages(),
                    .block_tables = batch.cache[0].block_tables(),
                    .context_lens = lens.view(),
                    .scale = kDemo.scale()},
                   cpu_stream(2));
  for (int32_t b = 0; b < 5; ++b) {
    SCOPED_TRACE(b);
    const Tensor row = out.view().rows(b, b + 1);
    if (b == 3) {
      for (int64_t i = 0; i < row.numel(); ++i) ASSERT_EQ(value_at(row, i), 0.f);
      continue;
    }
    const PagedCache cache(kDemo, {&batch.sequences[b], 1});
    const auto last = static_cast<int32_t>(batch.lens[b]) - 1;
    const auto alone = prefill(kDemo, cache, q.view().rows(b, b + 1), {{0, 1, last, 0}});
    EXPECT_TRUE(same_bits(alone.view(), row));
  }
}

}  // namespace
}  // namespace pbserve::test
