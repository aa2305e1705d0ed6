// Step 1 of PBS: the order of the keys, and what the pages hold afterwards.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "tests/kernels/pbs_case.h"

namespace pbserve::test {
namespace {

// Scores closer than this, relative to the larger, are a tie. A logit is a sum of D products of
// bf16 or float32 values, |q| |k| / sqrt(D) below 16 in total; tensor cores truncate at each 16 of
// them, so it is off by D / 16 * 16 * 2^-23 < 2e-5 at worst, and so is, relatively, a probability.
// Of two scores that makes 4e-5; sums of up to 1,024 probabilities, a quarter in one chain, 2 *
// 2^-24 * 256 more.
constexpr double kNear = 1e-4;

// Every segment's places hold each of its positions once, by descending score; of ties either may
// come first.
void expect_ordered(const PbsCase& pbs) {
  const auto scores = reference::key_scores_ref(pbs.problem());
  const auto order = pbs.kernel_order();
  const int64_t segment = pbs.problem().params.segment;
  for (size_t h = 0; h < order.size(); ++h) {
    const int64_t end = pbs.job.begin + pbs.problem().num_ordered();
    for (int64_t base = pbs.job.begin; base < end; base += segment) {
      std::vector<int64_t> positions(order[h].begin() + base, order[h].begin() + base + segment);
      for (int64_t i = 1; i < segment; ++i) {
        ASSERT_GE(positions[i], 0) << "head " << h << " place " << base + i << " holds no own row";
        const double before = scores[h][positions[i - 1] - pbs.job.begin];
        const double after = scores[h][positions[i] - pbs.job.begin];
        ASSERT_GE(before, after * (1 - kNear)) << "head " << h << " place " << base + i;
      }
      std::sort(positions.begin(), positions.end());
      for (int64_t i = 0; i < segment; ++i) ASSERT_EQ(positions[i], base + i);
    }
  }
}

double page_value(const PbsCase& pbs, const HostTensor& pages, int64_t place, int64_t h,
                  int64_t d) {
  const int64_t slot =
      (pbs.page(place / kPageSize) * pbs.shape.num_kv_heads + h) * kPageSize + place % kPageSize;
  return value_at(pages.view(), slot * pbs.shape.head_dim + d);
}

// Float32 sums of deviations from a page's first key lose bits as that key lies off the mean.
void expect_moments(const reference::Moments& stored, const reference::Moments& expected,
                    std::span<const double> first_key, double rounding) {
  for (size_t d = 0; d < stored.mean.size(); ++d) {
    const double mean = expected.mean[d], var = expected.var[d];
    ASSERT_NEAR(stored.mean[d], mean, 1e-6 + std::abs(mean) * (1e-6 + rounding));
    const double square = var + (first_key[d] - mean) * (first_key[d] - mean);
    ASSERT_NEAR(stored.var[d], var, 1e-5 * square + rounding * var);
  }
}

// The keys lie where the values do, the rest of the job in natural order; the moments are those of
// the pages; nothing past the job's end was written.
void expect_written(const PbsCase& pbs) {
  const auto order = pbs.kernel_order();
  const auto& problem = pbs.problem();
  const auto moments = pbs.kernel_moments();
  const double rounding = pbs.shape.dtype == DType::kBF16 ? 0x1p-8 : 0;
  for (int64_t h = 0; h < pbs.shape.num_kv_heads; ++h) {
    const int64_t ordered_end = pbs.job.begin + problem.num_ordered();
    for (int64_t place = pbs.job.begin; place < pbs.job.end; ++place) {
      const int64_t position = place < ordered_end ? order[h][place] : place;
      for (int64_t d = 0; d < pbs.shape.head_dim; ++d) {
        ASSERT_EQ(page_value(pbs, pbs.k_pages(), place, h, d), problem.k.at(position, h)[d]);
        ASSERT_EQ(page_value(pbs, pbs.v_pages(), place, h, d), problem.v.at(position, h)[d]);
      }
    }
    if (pbs.job.end % kPageSize != 0) {
      EXPECT_TRUE(std::isnan(page_value(pbs, pbs.k_pages(), pbs.job.end, h, 0)));
      EXPECT_TRUE(std::isnan(page_value(pbs, pbs.v_pages(), pbs.job.end, h, 0)));
    }
    for (int64_t j = pbs.job.begin / kPbsBlock; j < ordered_end / kPbsBlock; ++j) {
      expect_moments(moments[h][j], moments_ref(problem, order, h, j, DType::kF32),
                     problem.k.at(order[h][j * kPbsBlock], h), rounding);
    }
  }
}

constexpr AttentionShape kShapes[] = {
    {1, 1, 64, DType::kF32},   {4, 1, 64, DType::kBF16}, {7, 1, 64, DType::kF32},
    {8, 1, 128, DType::kBF16}, {6, 2, 64, DType::kBF16}, {7, 1, 128, DType::kBF16},
};

class PbsOrderOfShape : public ::testing::TestWithParam<AttentionTestCase> {
 protected:
  const Stream stream_ = stream_of(GetParam().backend);
};

INSTANTIATE_TEST_SUITE_P(Shapes, PbsOrderOfShape, ::testing::ValuesIn(attention_cases(kShapes)),
                         attention_case_name);

TEST_P(PbsOrderOfShape, MatchesTheReference) {
  for (const PbsJob& job : {job_of(0, 255), job_of(0, 256), job_of(0, 1023), job_of(1024, 1025),
                            job_of(1024, 1409), job_of(1024, 2600, 512), early_job(0, 1024, 256)}) {
    for (int32_t segment : {128, 256}) {
      SCOPED_TRACE(testing::Message() << job.begin << ".." << job.end << " S " << segment);
      PbsCase pbs(stream_, GetParam().shape, job, {.segment = segment});
      pbs.order();
      expect_ordered(pbs);
      expect_written(pbs);
    }
  }
}

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

class PbsOrderTest : public ::testing::TestWithParam<Backend> {
 protected:
  const Stream stream_ = stream_of(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Backends, PbsOrderTest, ::testing::ValuesIn(backends()), backend_name);

// Spans longer than any a kernel could keep on chip, the whole prompt as one among them.
TEST_P(PbsOrderTest, LongSpansMatchTheReference) {
  for (const PbsJob& job : {job_of(0, 4501, 0), job_of(2048, 6000, 2048), job_of(0, 9000, 8192)}) {
    SCOPED_TRACE(testing::Message() << job.begin << ".." << job.end << " C " << job.span_len);
    PbsCase pbs(stream_, kDemo, job, {});
    pbs.order();
    expect_ordered(pbs);
    expect_written(pbs);
  }
}

TEST_P(PbsOrderTest, NaturalOrderCopiesAndPools) {
  PbsCase pbs(stream_, kDemo, job_of(1024, 2500), {.order = kernels::PbsOrder::kNatural});
  pbs.order();
  for (const auto& places : pbs.kernel_order()) {
    for (int64_t place = 1024; place < 2304; ++place) ASSERT_EQ(places[place], place);
  }
  expect_written(pbs);
}

TEST_P(PbsOrderTest, EqualScoresKeepTheirPositions) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 640, rng);
  for (int64_t t = 0; t < 512; ++t) {  // all keys of the first segment, pairs in the second
    const int64_t twin = t < 256 ? 0 : t / 2 * 2;
    for (int64_t h = 0; h < 2; ++h)
      std::ranges::copy(sequence.k.at(twin, h), sequence.k.at(t, h).begin());
  }
  PbsCase pbs(stream_, kDemo, job_of(0, 640), {}, sequence);
  pbs.order();
  expect_written(pbs);
  for (const auto& of_head : pbs.kernel_moments()) {
    for (int64_t j : {0, 1}) EXPECT_EQ(of_head[j].var, std::vector<double>(kDemo.head_dim));
  }
  for (const auto& places : pbs.kernel_order()) {
    for (int64_t place = 0; place < 256; ++place) EXPECT_EQ(places[place], place);
    for (int64_t place = 256; place < 512; place += 2) {
      EXPECT_EQ(places[place] % 2, 0);
      EXPECT_EQ(places[place + 1], places[place] + 1);
    }
  }
}

// A channel may lie far from zero, as in models with large biases: squares of keys would leave
// nothing of its variance in float32.
TEST_P(PbsOrderTest, VarianceOfKeysFarFromZero) {
  std::mt19937 rng(3);
  const AttentionShape shape{2, 1, 64, widest_dtype(GetParam())};
  Sequence sequence = planted_sequence(shape, 512, rng);
  std::normal_distribution<double> deviation(0, 12);
  for (int64_t t = 0; t < 512; ++t) {
    sequence.k.at(t, 0)[7] =
        double(to_f32(kernels::from_f32<BF16>(static_cast<float>(1000 + deviation(rng)))));
  }
  PbsCase pbs(stream_, shape, job_of(0, 512), {}, sequence);
  pbs.order();
  expect_written(pbs);
}

TEST_P(PbsOrderTest, TokenZeroLeadsItsSegmentWhereTheSinkIsKept) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 512, rng);
  for (int64_t h = 0; h < 2; ++h) std::ranges::fill(sequence.k.at(0, h), 0.0);  // scores little
  for (const int32_t sink : {0, 1}) {
    PbsCase pbs(stream_, kDemo, job_of(0, 512), {.sink = sink}, sequence);
    pbs.order();
    for (const auto& places : pbs.kernel_order()) EXPECT_EQ(places[0] == 0, sink == 1);
    expect_written(pbs);
  }
}

// What a span's order depends on is in the span: not on the job it ran in, the threads or the run.
TEST_P(PbsOrderTest, ASpanAloneGivesTheBitsOfTheJob) {
  const Stream three_threads = stream_of(GetParam(), 3);
  PbsCase whole(stream_, kDemo, job_of(1024, 3900), {});
  whole.order();
  for (const int32_t begin : {1024, 2048, 3072}) {
    const PbsJob job{
        .begin = begin, .end = std::min(begin + 1024, 3900), .span_len = 1024, .prompt_len = 3900};
    std::mt19937 rng(1);
    PbsCase alone(three_threads, kDemo, job, {}, planted_sequence(kDemo, 4096, rng));
    alone.order();
    const int64_t end = begin + alone.problem().num_ordered();
    for (int64_t j = begin / kPageSize; j < end / kPageSize; ++j) {
      const Tensor a = whole.k_pages().view().at(whole.page(j));
      const Tensor b = alone.k_pages().view().at(alone.page(j));
      EXPECT_TRUE(same_bits(a, b)) << "page " << j;
      EXPECT_TRUE(same_bits(whole.k_mean().view().at(whole.page(j)),
                            alone.k_mean().view().at(alone.page(j))));
      EXPECT_TRUE(same_bits(whole.k_var().view().at(whole.page(j)),
                            alone.k_var().view().at(alone.page(j))));
    }
  }
}

TEST_P(PbsOrderTest, RowsPastTheJobAreNotRead) {
  PbsCase clean(stream_, kDemo, job_of(1024, 1400), {});
  PbsCase poisoned(stream_, kDemo, job_of(1024, 1400), {});
  poisoned.poison_own(256, 376);  // the incomplete tail: copied, not scored
  clean.order();
  poisoned.order();
  EXPECT_EQ(clean.kernel_order(), poisoned.kernel_order());
}

// A key that the span's last queries look for comes first in its segment, wherever it stood.
TEST_P(PbsOrderTest, ThePlantedKeyComesFirst) {
  std::mt19937 rng(5);
  Sequence sequence = planted_sequence(kDemo, 1024, rng);
  for (int64_t segment = 0; segment < 4; ++segment) {
    for (int64_t h = 0; h < 2; ++h) {
      const auto key = sequence.k.at(segment * 256 + 200 - segment * 50, h);
      std::ranges::fill(key, 0.0);
      for (int64_t t = 1024 - 128; t < 1024; ++t) {
        for (int64_t g = 0; g < 3; ++g) {
          for (int64_t d = 0; d < 64; ++d) key[d] += sequence.q.at(t, h * 3 + g)[d] / 64;
        }
      }
    }
  }
  for (double& x : sequence.k.data)
    x = double(to_f32(kernels::from_f32<BF16>(static_cast<float>(x))));
  PbsCase pbs(stream_, kDemo, job_of(0, 1024), {.sink = 0}, sequence);
  pbs.order();
  for (const auto& places : pbs.kernel_order()) {
    for (int64_t segment = 0; segment < 4; ++segment) {
      EXPECT_EQ(places[segment * 256], segment * 256 + 200 - segment * 50);
    }
  }
}

// Pages filled by other means are pooled to the same bits.
TEST_P(PbsOrderTest, PoolingGivesTheMomentsOfOrdering) {
  for (const AttentionShape& shape : {kDemo, AttentionShape{8, 1, 128, DType::kBF16}}) {
    PbsCase pbs(stream_, shape, job_of(0, 1024), {});
    pbs.order();
    const HostTensor empty =
        poisoned(shape.dtype, {pbs.k_mean().view().dim(0), shape.num_kv_heads, shape.head_dim});
    const DeviceTensor k(pbs.k_pages(), stream_), v(pbs.v_pages(), stream_);
    const DeviceTensor mean(empty, stream_), var(empty, stream_);
    std::vector<int32_t> pages;
    for (int64_t j = 0; j < 8; ++j) pages.push_back(pbs.page(j));
    const DeviceTensor table(tensor_of(pages), stream_);
    pbs_pool({.pages = {.k = k.view(), .v = v.view(), .k_mean = mean.view(), .k_var = var.view()},
              .block_table = table.view(),
              .num_pages = 7},
             stream_);
    for (const bool is_mean : {true, false}) {
      const HostTensor pooled = (is_mean ? mean : var).read();
      const Tensor ordered = (is_mean ? pbs.k_mean() : pbs.k_var()).view();
      for (int64_t j = 0; j < 7; ++j) {
        EXPECT_TRUE(same_bits(pooled.view().at(pages[j]), ordered.at(pages[j]))) << j;
      }
      EXPECT_TRUE(std::isnan(value_at(pooled.view().at(pages[7]), 0)));
    }
  }
}

}  // namespace
}  // namespace pbserve::test
