// Step 1 of PBS: the order of the keys, and what is copied and pooled in it.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

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
    for (int64_t base = 0; base < pbs.problem().num_ordered(); base += segment) {
      std::vector<int64_t> positions(order[h].begin() + base, order[h].begin() + base + segment);
      for (int64_t i = 1; i < segment; ++i) {
        const double before = scores[h][positions[i - 1]];
        const double after = scores[h][positions[i]];
        ASSERT_GE(before, after * (1 - kNear)) << "head " << h << " place " << base + i;
      }
      std::sort(positions.begin(), positions.end());
      for (int64_t i = 0; i < segment; ++i) ASSERT_EQ(positions[i], base + i);
    }
  }
}

void expect_copied_and_pooled(const PbsCase& pbs) {
  const auto order = pbs.kernel_order();
  for (int64_t h = 0; h < pbs.shape.num_kv_heads; ++h) {
    const Tensor k = pbs.plan().k.at(h), v = pbs.plan().v.at(h), mean = pbs.plan().k_pooled.at(h);
    const int64_t dim = pbs.shape.head_dim;
    std::vector<double> pooled(dim);
    for (int64_t place = 0; place < pbs.problem().num_ordered(); ++place) {
      for (int64_t d = 0; d < dim; ++d) {
        const double key = pbs.problem().k.at(order[h][place], h)[d];
        ASSERT_EQ(value_at(k, place * dim + d), key);
        ASSERT_EQ(value_at(v, place * dim + d), pbs.problem().v.at(order[h][place], h)[d]);
        pooled[d] += key / kPbsBlock;
        if ((place + 1) % kPbsBlock != 0) continue;
        ASSERT_NEAR(value_at(mean, place / kPbsBlock * dim + d), pooled[d], 1e-6);
        pooled[d] = 0;
      }
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
  for (const PbsSpan span : {PbsSpan{0, 255}, PbsSpan{0, 256}, PbsSpan{0, 1023},
                             PbsSpan{1024, 1025}, PbsSpan{1024, 1409}}) {
    for (int32_t segment : {128, 256}) {
      SCOPED_TRACE(testing::Message() << span.begin << ".." << span.end << " S " << segment);
      PbsCase pbs(stream_, GetParam().shape, span, {.segment = segment});
      pbs.order();
      expect_ordered(pbs);
      expect_copied_and_pooled(pbs);
    }
  }
}

constexpr AttentionShape kDemo{6, 2, 64, DType::kBF16};

class PbsOrder : public ::testing::TestWithParam<Backend> {
 protected:
  const Stream stream_ = stream_of(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Backends, PbsOrder, ::testing::ValuesIn(backends()), backend_name);

TEST_P(PbsOrder, EqualScoresKeepTheirPositions) {
  std::mt19937 rng(3);
  Sequence sequence = planted_sequence(kDemo, 640, rng);
  for (int64_t t = 0; t < 512; ++t) {  // all keys of the first segment, pairs in the second
    const int64_t twin = t < 256 ? 0 : t / 2 * 2;
    for (int64_t h = 0; h < 2; ++h)
      std::ranges::copy(sequence.k.at(twin, h), sequence.k.at(t, h).begin());
  }
  PbsCase pbs(stream_, kDemo, {512, 640}, {}, sequence);
  pbs.order();
  for (const auto& places : pbs.kernel_order()) {
    for (int64_t place = 0; place < 256; ++place) EXPECT_EQ(places[place], place);
    for (int64_t place = 256; place < 512; place += 2) {
      EXPECT_EQ(places[place] % 2, 0);
      EXPECT_EQ(places[place + 1], places[place] + 1);
    }
  }
}

TEST_P(PbsOrder, DoesNotDependOnTheNumberOfThreadsNorOnTheRun) {
  const Stream three_threads = stream_of(GetParam(), 3);
  PbsCase alone(stream_, kDemo, {1024, 2040}, {});
  PbsCase shared(three_threads, kDemo, {1024, 2040}, {});
  alone.order();
  shared.order();
  EXPECT_EQ(alone.kernel_order(), shared.kernel_order());
  const int64_t ordered = alone.problem().num_ordered() / kPbsBlock;
  for (int64_t h = 0; h < 2; ++h) {
    EXPECT_TRUE(same_bits(alone.plan().k_pooled.at(h).rows(0, ordered),
                          shared.plan().k_pooled.at(h).rows(0, ordered)));
  }
}

TEST_P(PbsOrder, KeysOfTheIncompleteTailAreNotRead) {
  PbsCase clean(stream_, kDemo, {1024, 1400}, {});
  PbsCase poisoned(stream_, kDemo, {1024, 1400}, {});
  poisoned.cache().poison_keys(0, 1280, 1400);
  clean.order();
  poisoned.order();
  EXPECT_EQ(clean.kernel_order(), poisoned.kernel_order());
}

// A key that the last queries look for comes first in its segment, wherever it stood.
TEST_P(PbsOrder, ThePlantedKeyComesFirst) {
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
  PbsCase pbs(stream_, kDemo, {0, 1024}, {}, sequence);
  pbs.order();
  for (const auto& places : pbs.kernel_order()) {
    for (int64_t segment = 0; segment < 4; ++segment) {
      EXPECT_EQ(places[segment * 256], segment * 256 + 200 - segment * 50);
    }
  }
}

}  // namespace
}  // namespace pbserve::test
