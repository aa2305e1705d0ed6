// Decode: right against the oracle for every length of a context, and a function of the row alone.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/kernels/attention_case.h"

namespace pbserve::test {
namespace {

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

// Sequences of these lengths without queries: keys and values are noise.
std::vector<Sequence> noise_sequences(const AttentionShape& shape, const std::vector<int64_t>& lens,
                                      std::mt19937& rng) {
  std::vector<Sequence> sequences;
  for (int64_t len : lens) {
    sequences.push_back(
        {.q = {},
         .k = random_heads(len, shape.num_kv_heads, shape.head_dim, shape.dtype, rng),
         .v = random_heads(len, shape.num_kv_heads, shape.head_dim, shape.dtype, rng)});
  }
  return sequences;
}

// The whole context of each sequence, and one row of padding among them.
std::vector<DecodeRow> whole_contexts(const std::vector<Sequence>& sequences) {
  std::vector<DecodeRow> rows;
  for (const Sequence& sequence : sequences) {
    rows.push_back({.sequence = static_cast<int64_t>(rows.size()),
                    .context_len = static_cast<int32_t>(sequence.k.num_tokens)});
  }
  rows.insert(rows.begin() + 1, DecodeRow{.sequence = 0, .context_len = 0});
  return rows;
}

// Each query looks for four keys of its context, so that a few tokens far apart share about half of
// its attention with the noise of all others. [B, Hq, D], exact in the shape's dtype.
reference::Heads seeking_queries(const AttentionShape& shape,
                                 const std::vector<Sequence>& sequences,
                                 const std::vector<DecodeRow>& rows, std::mt19937& rng) {
  const int64_t group = shape.num_q_heads / shape.num_kv_heads;
  auto q = random_heads(static_cast<int64_t>(rows.size()), shape.num_q_heads, shape.head_dim,
                        DType::kF32, rng);
  for (size_t b = 0; b < rows.size(); ++b) {
    if (rows[b].context_len == 0) continue;
    std::uniform_int_distribution<int64_t> any_position(0, rows[b].context_len - 1);
    for (int64_t h = 0; h < shape.num_q_heads; ++h) {
      for (int i = 0; i < 4; ++i) {
        const auto key = sequences[rows[b].sequence].k.at(any_position(rng), h / group);
        const auto row = q.at(static_cast<int64_t>(b), h);
        for (int64_t d = 0; d < shape.head_dim; ++d) row[d] += 0.9 * key[d];
      }
    }
  }
  q.data = to_tensor(q, shape.dtype).values();
  return q;
}

::testing::AssertionResult decode_matches(const AttentionShape& shape,
                                          const std::vector<Sequence>& sequences,
                                          const std::vector<DecodeRow>& rows,
                                          const reference::Heads& q, const Tensor& out,
                                          double arithmetic_error) {
  const int64_t group = shape.num_q_heads / shape.num_kv_heads;
  for (size_t b = 0; b < rows.size(); ++b) {
    const Sequence& sequence = sequences[rows[b].sequence];
    std::vector<int64_t> positions(rows[b].context_len);
    std::iota(positions.begin(), positions.end(), 0);
    for (int64_t h = 0; h < shape.num_q_heads; ++h) {
      const auto row = static_cast<int64_t>(b);
      const auto expected = reference::attend_ref(q.at(row, h), sequence.k, sequence.v, h / group,
                                                  positions, double(shape.scale()));
      auto result = close_to(expected, out, row, h, arithmetic_error);
      if (!result) return result << " (context " << rows[b].context_len << ")";
    }
  }
  return ::testing::AssertionSuccess();
}

class DecodeOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const AttentionShape& shape() const { return GetParam().shape; }

  // All rows together against the oracle, each row alone against all together.
  void expect_right_and_independent(const std::vector<int64_t>& lens) {
    std::mt19937 rng(3);
    const auto sequences = noise_sequences(shape(), lens, rng);
    const auto rows = whole_contexts(sequences);
    const auto q = seeking_queries(shape(), sequences, rows, rng);
    const PagedCache cache(shape(), sequences);
    const DeviceCache device_cache(cache, stream_);
    const auto together = run_decode(shape(), device_cache, to_tensor(q, shape().dtype), rows);
    ASSERT_TRUE(decode_matches(shape(), sequences, rows, q, together.view(),
                               decode_error(GetParam().backend)));
    for (int64_t b = 0; b < q.num_tokens; ++b) {
      SCOPED_TRACE(rows[b].context_len);
      const auto own_q = to_tensor(rows_of(q, b, b + 1), shape().dtype);
      const auto alone = run_decode(shape(), device_cache, own_q, {&rows[b], 1});
      EXPECT_TRUE(same_bits(alone.view(), together.view().rows(b, b + 1)));
    }
  }

  Stream stream_ = stream_of(GetParam().backend);
};

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},    {4, 1, 64, DType::kBF16},   {7, 1, 128, DType::kBF16},
    {8, 1, 64, DType::kF32},    {4, 4, 128, DType::kF32},   {6, 2, 64, DType::kBF16},
    {3, 3, 16, DType::kF32},    {2, 1, 48, DType::kBF16},   {2, 1, 256, DType::kF32},
    {3, 3, 128, DType::kBF16},  {16, 2, 128, DType::kBF16}, {16, 1, 64, DType::kBF16},
    {16, 1, 128, DType::kBF16}, {40, 2, 64, DType::kBF16},
};
INSTANTIATE_TEST_SUITE_P(Shapes, DecodeOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(DecodeOfShape, MatchesTheReferenceAloneAndInABatch) {
  expect_right_and_independent({1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 256, 257, 300, 513});
}

TEST_P(DecodeOfShape, OfAPositionIsItsPrefillRow) {
  if (stream_.is_cuda()) GTEST_SKIP() << "a promise of the CPU";
  const int32_t len = 413;
  std::mt19937 rng(1);
  const Sequence sequence = planted_sequence(shape(), len, rng);
  const PagedCache cache(shape(), {&sequence, 1});
  const DeviceCache device_cache(cache, stream_);
  const kernels::PrefillSegment whole{
      .row_begin = 0, .num_rows = len, .position = 0, .sequence = 0};
  const auto prefilled =
      run_prefill(shape(), device_cache, to_tensor(sequence.q, shape().dtype), {&whole, 1});
  for (int32_t position : {0, 1, 126, 127, 128, 255, 256, 300, 412}) {
    SCOPED_TRACE(position);
    const DecodeRow row{.sequence = 0, .context_len = position + 1};
    const auto q = to_tensor(rows_of(sequence.q, position, position + 1), shape().dtype);
    const auto out = run_decode(shape(), device_cache, q, {&row, 1});
    EXPECT_TRUE(same_bits(out.view(), prefilled.view().rows(position, position + 1)));
  }
}

// Contexts that a GPU cuts into many chunks.
class LongDecode : public DecodeOfShape {};
constexpr AttentionShape kLongShapes[] = {{1, 1, 128, DType::kBF16},
                                          {8, 2, 64, DType::kBF16},
                                          {7, 1, 128, DType::kBF16},
                                          {8, 1, 64, DType::kBF16},
                                          {16, 1, 128, DType::kBF16}};
INSTANTIATE_TEST_SUITE_P(Shapes, LongDecode, ::testing::ValuesIn(attention_cases(kLongShapes)),
                         attention_case_name);

TEST_P(LongDecode, MatchesTheReferenceAloneAndInABatch) {
  expect_right_and_independent({5000, 20000, 300, 8193});
}

class Decode : public ::testing::TestWithParam<Backend> {
 protected:
  Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, Decode, ::testing::ValuesIn(backends()), backend_name);

TEST_P(Decode, MayWriteOverItsQueries) {
  std::mt19937 rng(5);
  const auto sequences = noise_sequences(kDemo, {200, 5000, 1, 700}, rng);
  const auto rows = whole_contexts(sequences);
  const auto q = to_tensor(seeking_queries(kDemo, sequences, rows, rng), kDemo.dtype);
  const PagedCache cache(kDemo, sequences);
  const DeviceCache device_cache(cache, stream_);
  const auto apart = run_decode(kDemo, device_cache, q, rows, DecodeOutput::kOwnTensor);
  const auto over = run_decode(kDemo, device_cache, q, rows, DecodeOutput::kOverQ);
  EXPECT_TRUE(same_bits(apart.view(), over.view()));
}

// More rows than a thread block has lanes, of all lengths in no order, some of them padding.
TEST_P(Decode, OfManyRowsMatchesTheReference) {
  std::mt19937 rng(6);
  const auto sequences = noise_sequences(kDemo, {600}, rng);
  std::vector<DecodeRow> rows;
  for (int32_t i = 0; i < 300; ++i) rows.push_back({.sequence = 0, .context_len = i * 37 % 601});
  const auto q = seeking_queries(kDemo, sequences, rows, rng);
  const PagedCache cache(kDemo, sequences);
  const auto out = run_decode(kDemo, DeviceCache(cache, stream_), to_tensor(q, kDemo.dtype), rows);
  EXPECT_TRUE(decode_matches(kDemo, sequences, rows, q, out.view(), decode_error(GetParam())));
}

TEST_P(Decode, OfPaddingAloneIsZero) {
  std::mt19937 rng(8);
  const auto sequences = noise_sequences(kDemo, {10}, rng);
  const std::vector<DecodeRow> rows(40, {.sequence = 0, .context_len = 0});
  const auto q = seeking_queries(kDemo, sequences, rows, rng);
  const PagedCache cache(kDemo, sequences);
  const auto out = run_decode(kDemo, DeviceCache(cache, stream_), to_tensor(q, kDemo.dtype), rows);
  for (int64_t i = 0; i < out.view().numel(); ++i) ASSERT_EQ(value_at(out.view(), i), 0.f) << i;
}

}  // namespace
}  // namespace pbserve::test
