#include "engine/prefill_spans.h"

#include <gtest/gtest.h>

#include "tests/engine/sequence_factory.h"

namespace pbserve::engine {
namespace {

constexpr SpanRules kRules{.span = 1024, .min_tokens = 512, .long_rows = 1024, .short_rows = 256};

struct Cut {
  int64_t begin;
  int64_t end;
  bool pbs;
  bool draws;
  bool operator==(const Cut&) const = default;
};

class PrefillSpansTest : public testing::Test {
 protected:
  Sequence make(int64_t num_prompt, bool pbs, bool short_spans = false) {
    SequenceSpec spec = make_spec(1, num_prompt, 500);
    spec.pbs = pbs;
    spec.pbs_short_spans = short_spans;
    return Sequence(std::move(spec));
  }

  static std::vector<Cut> cuts(Sequence& sequence, const SpanRules& rules, int64_t cached = 0) {
    std::vector<Cut> all;
    sequence.start_prefill(cached, 0);
    while (sequence.num_computed() < sequence.num_tokens()) {
      const PrefillSpan span = next_span(sequence, rules);
      all.push_back({span.begin, span.end, span.pbs, span.draws_token});
      sequence.advance_computed(span.end);
    }
    return all;
  }
};

TEST_F(PrefillSpansTest, PbsPromptIsCutAtMultiplesOfTheSpan) {
  Sequence sequence = make(2700, true);
  EXPECT_EQ(cuts(sequence, kRules),
            (std::vector<Cut>{
                {0, 1024, true, false}, {1024, 2048, true, false}, {2048, 2700, true, true}}));
}

TEST_F(PrefillSpansTest, ShortLastSpanRunsDenseUnlessTheRequestAsksForPbs) {
  Sequence automatic = make(1024 + 511, true);
  EXPECT_EQ(cuts(automatic, kRules),
            (std::vector<Cut>{{0, 1024, true, false}, {1024, 1535, false, true}}));
  Sequence forced = make(1024 + 511, true, true);
  EXPECT_EQ(cuts(forced, kRules),
            (std::vector<Cut>{{0, 1024, true, false}, {1024, 1535, true, true}}));
}

TEST_F(PrefillSpansTest, CutsDoNotDependOnWhatWasCached) {
  Sequence cold = make(2700, true);
  Sequence warm = make(2700, true);
  std::vector<Cut> expected = cuts(cold, kRules);
  expected.erase(expected.begin());
  EXPECT_EQ(cuts(warm, kRules, usable_prefix(warm, 1700, kRules)), expected);
}

TEST_F(PrefillSpansTest, WholePromptIsOneSpan) {
  SpanRules whole = kRules;
  whole.span = 0;
  whole.long_rows = 4096;
  Sequence sequence = make(2700, true);
  EXPECT_EQ(cuts(sequence, whole), (std::vector<Cut>{{0, 2700, true, true}}));
  EXPECT_EQ(num_reusable(sequence, whole), 0);
  EXPECT_EQ(usable_prefix(sequence, 2688, whole), 0);
}

TEST_F(PrefillSpansTest, RecomputedOutputRunsDense) {
  Sequence sequence = make(2048, true);
  sequence.expect_token();
  sequence.append_token(7);
  EXPECT_EQ(cuts(sequence, kRules),
            (std::vector<Cut>{
                {0, 1024, true, false}, {1024, 2048, true, false}, {2048, 2049, false, true}}));
}

TEST_F(PrefillSpansTest, ReusableTokensAreWholePagesOrWholeSpans) {
  Sequence dense = make(1500, false);
  cuts(dense, kRules);
  EXPECT_EQ(num_reusable(dense, kRules), 1408);
  EXPECT_EQ(usable_prefix(dense, 1500, kRules), 1408);
  Sequence pbs = make(1500, true);
  cuts(pbs, kRules);
  EXPECT_EQ(num_reusable(pbs, kRules), 1024);
}

TEST_F(PrefillSpansTest, AFullyCachedPromptStillComputesItsLastToken) {
  Sequence dense = make(1024, false);
  EXPECT_EQ(usable_prefix(dense, 1024, kRules), 896);
  Sequence pbs = make(2048, true);
  EXPECT_EQ(usable_prefix(pbs, 2048, kRules), 1024);
}

}  // namespace
}  // namespace pbserve::engine
