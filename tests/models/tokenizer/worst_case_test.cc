// The strings that make careless tokenizers quadratic: four times the length may take at most six
// times the processor time, and never minutes.
#include <gtest/gtest.h>

#include <ctime>

#include "models/tokenizer/stream_decoder.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/tokenizer_fixtures.h"

namespace pbserve::test {
namespace {

using models::Tokenizer;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string repeat(std::string_view unit, size_t num_bytes) {
  std::string text;
  while (text.size() + unit.size() <= num_bytes) text += unit;
  return text;
}

class WorstCase : public testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    auto loaded = Tokenizer::load(std::string(PBSERVE_SOURCE_DIR) + "/models/demo");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = *std::move(loaded);
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  // Processor time to encode `num_bytes` of the unit and decode the ids again; the least of three.
  static double seconds(size_t num_bytes) {
    const std::string text = repeat(GetParam(), num_bytes);
    double least = 1e9;
    for (int run = 0; run < 3; ++run) {
      const double start = thread_seconds();
      const auto ids = tokenizer_->encode(text, {});
      EXPECT_TRUE(ids.ok()) << ids.status();
      EXPECT_FALSE(tokenizer_->decode(*ids, false).empty());
      least = std::min(least, thread_seconds() - start);
    }
    return least;
  }

  static inline std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(WorstCase, TimeGrowsWithLength) {
  constexpr size_t kSmall = size_t{1} << 17;
  constexpr double kTimerNoise = 0.01;
  const double small = seconds(kSmall);
  const double large = seconds(4 * kSmall);
  EXPECT_LT(large, 6 * small + kTimerNoise);
}

INSTANTIATE_TEST_SUITE_P(Units, WorstCase,
                         testing::Values("a", " ", "\n", "\u0301", "\u0323\u0301", "1", "ab", "=",
                                         " \n", "\r\n", "\u4E2D", "\u3000", "e\u0301", "'s",
                                         "<|im_end", "<|im_end|>", "\u1100\u1161", "abcdefgh"));

// The ids of a string of broken characters: what a stream holds back stays small.
TEST(WorstCaseDecoding, ALongStreamOfBrokenCharacters) {
  const auto tokenizer = Tokenizer::load(std::string(PBSERVE_SOURCE_DIR) + "/models/demo");
  ASSERT_TRUE(tokenizer.ok());
  const std::vector<int32_t> face = *(*tokenizer)->encode("\U0001F600", {});
  models::StreamDecoder decoder(**tokenizer, true);
  const double start = thread_seconds();
  size_t num_bytes = 0;
  for (int i = 0; i < 1000000; ++i) num_bytes += decoder.push(face[0]).size();
  EXPECT_GE(num_bytes, 2999000u);  // U+FFFD each
  EXPECT_LT(thread_seconds() - start, 2.0);
}

}  // namespace
}  // namespace pbserve::test
