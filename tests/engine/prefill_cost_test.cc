// Costs are learnt from jobs of a made-up device, whose rates the model's own counts do not tell.
#include "engine/prefill_cost.h"

#include <gtest/gtest.h>

#include <random>

namespace pbserve::engine {
namespace {

// Llama-3.1-8B's operations, and about what they take on an H200: attention runs at some other rate
// than the products, and PBS leaves most of it out.
constexpr PrefillCost::Prior kPrior{.row = 14e9, .pair = 5.2e5};

double true_ms(int64_t begin, int64_t end, bool pbs) {
  const auto square = [](int64_t n) { return static_cast<double>(n) * static_cast<double>(n); };
  const double pairs = (square(end) - square(begin)) / 2;
  return 0.0173 * static_cast<double>(end - begin) + (pbs ? 2e-7 : 9e-7) * pairs;
}

PrefillChunk chunk(int64_t begin, int64_t end, bool pbs) {
  return {.begin = begin, .end = end, .pbs = pbs};
}

void expect_within(const PrefillCost& cost, int64_t begin, int64_t end, bool pbs, double share) {
  const double expected = true_ms(begin, end, pbs);
  EXPECT_NEAR(cost.ms(begin, end, pbs), expected, share * expected)
      << begin << " to " << end << (pbs ? ", PBS" : ", dense");
}

TEST(PrefillCost, BeforeTheFirstJobItComparesPromptsByTheirOperations) {
  const PrefillCost cost(kPrior);
  EXPECT_FALSE(cost.has_rate());
  EXPECT_LT(cost.ms(0, 1000, false), cost.ms(0, 1001, false));
  EXPECT_GT(cost.ms(100000, 101000, false), 4 * cost.ms(0, 1000, false));
}

TEST(PrefillCost, LearnsBothRatesOfBothModesThroughNoise) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> noise(0.9, 1.1);
  PrefillCost cost(kPrior);
  for (int64_t begin = 0; begin < 131072; begin += 8192) {
    for (const bool pbs : {false, true}) {
      cost.observe(chunk(begin, begin + 8192, pbs),
                   noise(random) * true_ms(begin, begin + 8192, pbs));
    }
  }
  for (const bool pbs : {false, true}) {
    expect_within(cost, 0, 8192, pbs, 0.25);
    expect_within(cost, 0, 131072, pbs, 0.1);
    expect_within(cost, 1000000, 1001024, pbs, 0.15);
  }
}

// A few rows take as long as reading the weights: many such jobs must not make long ones look
// expensive.
TEST(PrefillCost, ManyTinyJobsDoNotDrownTheLongOnes) {
  PrefillCost cost(kPrior);
  for (int64_t begin = 0; begin < 65536; begin += 8192) {
    cost.observe(chunk(begin, begin + 8192, false), true_ms(begin, begin + 8192, false));
  }
  for (int i = 0; i < 1000; ++i) cost.observe(chunk(0, 20, false), 7);
  expect_within(cost, 0, 65536, false, 0.3);
}

TEST(PrefillCost, FollowsADeviceThatBecomesSlower) {
  PrefillCost cost(kPrior);
  for (int pass = 0; pass < 3; ++pass) {
    const double slow = pass == 0 ? 1 : 2;
    for (int64_t begin = 0; begin < 131072; begin += 8192) {
      cost.observe(chunk(begin, begin + 8192, false), slow * true_ms(begin, begin + 8192, false));
    }
  }
  EXPECT_NEAR(cost.ms(0, 131072, false) / true_ms(0, 131072, false), 2, 0.2);
}

TEST(PrefillCost, RowsWithinATimeTakeThatTime) {
  PrefillCost cost(kPrior);
  for (int64_t begin = 0; begin < 131072; begin += 8192) {
    cost.observe(chunk(begin, begin + 8192, false), true_ms(begin, begin + 8192, false));
  }
  const int64_t rows = cost.rows_within(200, 1 << 20, false);
  EXPECT_GT(rows, 1);
  EXPECT_LE(cost.ms(1 << 20, (1 << 20) + rows, false), 200);
  EXPECT_GT(cost.ms(1 << 20, (1 << 20) + rows + 1, false), 200);
  EXPECT_EQ(cost.rows_within(1e-9, 1 << 20, false), 1);
}

}  // namespace
}  // namespace pbserve::engine
