#include "engine/decode_pass.h"

#include <gtest/gtest.h>

namespace pbserve::engine {
namespace {

TEST(DecodeBuckets, EndWithAllSlotsAndPadAThirdAtMost) {
  EXPECT_EQ(decode_buckets(1), (std::vector<int64_t>{1}));
  EXPECT_EQ(decode_buckets(5), (std::vector<int64_t>{1, 2, 4, 5}));
  EXPECT_EQ(decode_buckets(64), (std::vector<int64_t>{1, 2, 4, 8, 16, 24, 32, 48, 64}));
  const std::vector<int64_t> buckets = decode_buckets(200);
  EXPECT_EQ(buckets.back(), 200);
  for (size_t i = 0; i + 1 < buckets.size(); ++i) {
    const int64_t padding = buckets[i + 1] - (buckets[i] + 1);
    if (buckets[i] >= 16) {
      EXPECT_LE(3 * padding, buckets[i + 1]) << buckets[i];
    }
  }
}

}  // namespace
}  // namespace pbserve::engine
