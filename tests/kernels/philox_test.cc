#include "kernels/core/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace pbserve::kernels {
namespace {

void expect_block(const PhiloxBlock& got, const PhiloxBlock& expected) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(got.x[i], expected.x[i]) << i;
}

// The known answers that the authors publish with their library Random123.
TEST(Philox, KnownAnswers) {
  expect_block(philox(0, {}), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  expect_block(philox(~uint64_t{0}, {{~0u, ~0u, ~0u, ~0u}}),
               {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  expect_block(philox(0x299f31d0'a4093822, {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}),
               {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

TEST(Philox, SeedAndPositionBothMatter) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (uint32_t position = 0; position < 100; ++position) {
      seen.insert(philox_bits(seed << 33, position));
    }
  }
  EXPECT_EQ(seen.size(), 10'000u);
}

}  // namespace
}  // namespace pbserve::kernels
