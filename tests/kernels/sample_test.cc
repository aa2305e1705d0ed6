#include "kernels/ops/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/core/philox.h"
#include "tests/reference/sample_ref.h"
#include "tests/support/backends.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using kernels::kMaxBannedIds;
using reference::SampleRefParams;

// One row to draw: its logits and everything about it.
struct Row {
  std::vector<float> logits;
  SampleRefParams params;
  uint64_t seed = 0;
  int32_t position = 0;
};

// Token of each row; row b is written at the place B - 1 - b.
std::vector<int32_t> run(const std::vector<Row>& rows, const kernels::Stream& stream) {
  const auto size = static_cast<int64_t>(rows.size());
  std::vector<float> logits, temperature, top_p, min_p;
  std::vector<int32_t> index, top_k, position, banned;
  std::vector<uint64_t> seed;
  for (const Row& row : rows) {
    logits.insert(logits.end(), row.logits.begin(), row.logits.end());
    temperature.push_back(static_cast<float>(row.params.temperature));
    top_k.push_back(static_cast<int32_t>(row.params.top_k));
    top_p.push_back(static_cast<float>(row.params.top_p));
    min_p.push_back(static_cast<float>(row.params.min_p));
    seed.push_back(row.seed);
    position.push_back(row.position);
    index.push_back(static_cast<int32_t>(rows.size() - index.size() - 1));
    std::vector<int32_t> ids = row.params.banned;
    ids.resize(kMaxBannedIds, -1);
    banned.insert(banned.end(), ids.begin(), ids.end());
  }
  const auto vocab = static_cast<int64_t>(rows[0].logits.size());
  const DeviceTensor token(tensor_of(std::vector<int32_t>(rows.size(), -77)), stream);
  const DeviceTensor d_index(tensor_of(index), stream), d_top_k(tensor_of(top_k), stream),
      d_logits(tensor_of(logits, {size, vocab}), stream), d_top_p(tensor_of(top_p), stream),
      d_temperature(tensor_of(temperature), stream), d_min_p(tensor_of(min_p), stream),
      d_seed(tensor_of(seed), stream), d_position(tensor_of(position), stream),
      d_banned(tensor_of(banned, {size, kMaxBannedIds}), stream);
  sample({.token = token.view(),
          .index = d_index.view(),
          .logits = d_logits.view(),
          .temperature = d_temperature.view(),
          .top_k = d_top_k.view(),
          .top_p = d_top_p.view(),
          .min_p = d_min_p.view(),
          .seed = d_seed.view(),
          .position = d_position.view(),
          .banned = d_banned.view()},
         stream);
  const HostTensor written = token.read();
  const int32_t* begin = written.view().as<int32_t>();
  return {std::make_reverse_iterator(begin + size), std::make_reverse_iterator(begin)};
}

class SampleTest : public ::testing::TestWithParam<Backend> {
 protected:
  std::vector<float> random_logits(size_t size, float spread = 2) {
    std::normal_distribution<float> normal(0, spread);
    std::vector<float> logits(size);
    for (float& logit : logits) logit = normal(random_);
    return logits;
  }
  int32_t run_one(const Row& row) { return run({row}, stream_)[0]; }

  std::mt19937 random_{16};
  kernels::Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, SampleTest, ::testing::ValuesIn(backends()), backend_name);

const std::vector<SampleRefParams> kFilters = {
    {},
    {.temperature = 0.3},
    {.temperature = 3},
    {.top_k = 1},
    {.top_k = 7},
    {.top_k = 100'000},
    {.top_p = 0.5},
    {.temperature = 0.7, .top_p = 0.95},
    {.min_p = 0.1},
    {.min_p = 1},
    {.temperature = 1.5, .top_k = 20, .top_p = 0.8, .min_p = 0.05},
    {.top_p = 1e-6},
    {.top_k = 5, .banned = {0, 1, 2, 3, 50}},
};

// Exact: the same philox point on the reference's distribution gives the same token, except where
// the point falls within rounding of a border.
TEST_P(SampleTest, DrawsTheReferencesToken) {
  for (const size_t vocab : {1u, 2u, 101u, 5003u, 20'008u}) {
    for (size_t f = 0; f < kFilters.size(); ++f) {
      SCOPED_TRACE(testing::Message() << "vocabulary " << vocab << " filter " << f);
      if (vocab <= kFilters[f].banned.size()) continue;
      const std::vector<float> logits = random_logits(vocab);
      const std::vector<double> p = reference::sample_ref(logits, kFilters[f]);
      std::vector<Row> rows;
      for (int32_t i = 0; i < 40; ++i) {
        rows.push_back({logits, kFilters[f], 1234567890123u * static_cast<uint64_t>(i), i * 7});
      }
      const std::vector<int32_t> tokens = run(rows, stream_);
      for (size_t i = 0; i < rows.size(); ++i) {
        const double point = std::ldexp(static_cast<double>(kernels::philox_bits(
                                            rows[i].seed, static_cast<uint32_t>(rows[i].position))),
                                        -64);
        const int32_t low = reference::draw_ref(p, point - 1e-6);
        const int32_t high = reference::draw_ref(p, point + 1e-6);
        EXPECT_TRUE(tokens[i] == low || tokens[i] == high)
            << tokens[i] << " expected " << low << " row " << i;
      }
    }
  }
}

TEST_P(SampleTest, FrequenciesFollowTheDistribution) {
  const std::vector<float> logits = random_logits(40, 1);
  const SampleRefParams params{.temperature = 0.8, .top_p = 0.95};
  const std::vector<double> p = reference::sample_ref(logits, params);
  constexpr int kDraws = 20'000;
  std::vector<Row> rows;
  for (int32_t i = 0; i < kDraws; ++i) rows.push_back({logits, params, 99, i});
  std::vector<double> counts(40, 0);
  for (const int32_t token : run(rows, stream_)) counts[static_cast<size_t>(token)] += 1;
  double chi_square = 0;
  int degrees = -1;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "a filtered id was drawn";
      continue;
    }
    const double expected = p[i] * kDraws;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++degrees;
  }
  // Six standard deviations of a chi-square variable; the seed is fixed, so this never flickers.
  EXPECT_LT(chi_square, degrees + 6 * std::sqrt(2. * degrees));
}

TEST_P(SampleTest, GreedyTakesTheLowestIdOfEqualLogits) {
  std::vector<float> logits = random_logits(1000);
  logits[333] = logits[334] = logits[900] = 50;
  EXPECT_EQ(run_one({logits, {.temperature = 0}}), 333);
  EXPECT_EQ(run_one({logits, {.temperature = 0, .banned = {333}}}), 334);
  EXPECT_EQ(run_one({logits, {.temperature = 1, .top_k = 1}}), 333);
}

TEST_P(SampleTest, SmallTemperatureIsGreedyWithoutOverflow) {
  const std::vector<float> logits = random_logits(500, 1e4f);
  const int32_t greedy = run_one({logits, {.temperature = 0}});
  EXPECT_EQ(run_one({logits, {.temperature = 1e-30}}), greedy);
}

TEST_P(SampleTest, BannedIdsAreNeverDrawn) {
  const std::vector<float> logits(kMaxBannedIds + 1, 0.f);
  SampleRefParams params;
  for (int32_t id = 0; id < kMaxBannedIds; ++id) params.banned.push_back(id);
  for (int32_t position = 0; position < 50; ++position) {
    EXPECT_EQ(run_one({logits, params, 5, position}), kMaxBannedIds);
  }
}

TEST_P(SampleTest, UnusualLogits) {
  const float nan = std::nanf("");
  const float inf = HUGE_VALF;
  for (const double temperature : {0., 1.}) {
    const SampleRefParams params{.temperature = temperature};
    EXPECT_EQ(run_one({{nan, -inf, 1.f, nan}, params}), 2);
    EXPECT_EQ(run_one({{1.f, inf, 3.f}, params}), 1);
    EXPECT_EQ(run_one({{nan, -inf, nan}, params}), kernels::kNoToken);
    EXPECT_EQ(run_one({{-1e38f, 3e38f}, params}), 1);
  }
  const SampleRefParams greedy{.temperature = 0};
  EXPECT_EQ(run_one({{-1.f, -0.f, 0.f, -0.f}, greedy}), 1);
  EXPECT_EQ(run_one({{-1.f, 0.f, -0.f}, {.temperature = 1, .top_k = 1}}), 1);
  const SampleRefParams both{.temperature = 0, .banned = {0}};
  EXPECT_EQ(run_one({{5.f}, both}), kernels::kNoToken);
}

// Logits that repeat: the cuts of top-k and top-p fall between equal ones, at an id.
TEST_P(SampleTest, FiltersCutEqualLogitsById) {
  std::vector<float> coarse = random_logits(6004);
  for (float& logit : coarse) logit = std::round(logit * 2) / 2;
  for (const std::vector<float>& logits : {coarse, std::vector<float>(6004, -3.f)}) {
    for (const int64_t top_k : {0, 1, 30, 1000, 6003}) {
      const SampleRefParams params{.top_k = top_k, .top_p = top_k == 1000 ? 1 : 0.7};
      const std::vector<double> p = reference::sample_ref(logits, params);
      std::vector<Row> rows;
      for (int32_t i = 0; i < 60; ++i) rows.push_back({logits, params, 3, i});
      const std::vector<int32_t> tokens = run(rows, stream_);
      for (size_t i = 0; i < rows.size(); ++i) {
        const double point =
            std::ldexp(static_cast<double>(kernels::philox_bits(3, static_cast<uint32_t>(i))), -64);
        EXPECT_TRUE(tokens[i] == reference::draw_ref(p, point - 1e-6) ||
                    tokens[i] == reference::draw_ref(p, point + 1e-6))
            << tokens[i] << " row " << i << " top_k " << top_k;
      }
    }
  }
}

// The vocabularies of real models, whose rows a GPU block reads in many pieces.
TEST_P(SampleTest, GpuDrawsTheCpusTokens) {
  if (!stream_.is_cuda()) GTEST_SKIP() << "compares a GPU with the CPU";
  const kernels::Stream cpu = stream_of({.name = "cpu", .device = {}});
  for (const size_t vocab : {32'003u, 128'256u, 262'144u}) {
    std::vector<Row> rows;
    for (size_t i = 0; i < 2 * kFilters.size(); ++i) {
      rows.push_back({random_logits(vocab, i % 2 == 0 ? 1.f : 3.f), kFilters[i / 2], 77 + i,
                      static_cast<int32_t>(i)});
    }
    EXPECT_EQ(run(rows, stream_), run(rows, cpu)) << vocab;
  }
}

TEST_P(SampleTest, ARowDoesNotDependOnItsCompany) {
  std::vector<Row> rows;
  for (size_t i = 0; i < 64; ++i) {
    rows.push_back(
        {random_logits(3001), kFilters[i % kFilters.size()], i, static_cast<int32_t>(i)});
  }
  const std::vector<int32_t> together = run(rows, stream_);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(run_one(rows[i]), together[i]) << i;
}

TEST_P(SampleTest, SeedAndPositionChangeTheDraw) {
  const std::vector<float> logits(1000, 0.f);
  std::vector<Row> rows;
  for (int32_t i = 0; i < 10; ++i) rows.push_back({logits, {}, 1, i});
  for (uint64_t i = 2; i < 12; ++i) rows.push_back({logits, {}, i, 0});
  const std::vector<int32_t> tokens = run(rows, stream_);
  EXPECT_EQ(tokens, run(rows, stream_));
  EXPECT_GT(std::set<int32_t>(tokens.begin(), tokens.end()).size(), 17u);
}

}  // namespace
}  // namespace pbserve::test
