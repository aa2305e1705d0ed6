#include "engine/prefill_chunks.h"

#include <gtest/gtest.h>

#include "tests/engine/sequence_factory.h"

namespace pbserve::engine {
namespace {

constexpr ChunkRules kRules{.span = 1024, .dense_tail = 2, .main_rows = 2048, .express_rows = 256};

ChunkRules with(PrefixReuse reuse) {
  ChunkRules rules = kRules;
  rules.reuse = reuse;
  return rules;
}

struct Cut {
  int64_t begin;
  int64_t end;
  bool pbs;
  bool draws;
  bool operator==(const Cut&) const = default;
};

class PrefillChunksTest : public testing::Test {
 protected:
  Sequence make(int64_t num_prompt, bool pbs) {
    SequenceSpec spec = make_spec(1, num_prompt, 500);
    spec.pbs = pbs;
    return Sequence(std::move(spec));
  }

  // The next chunk of a sequence in prefill, in the main lane.
  static PrefillChunk next(const Sequence& sequence, const ChunkRules& rules) {
    return next_chunk(sequence, sequence.num_computed(), rules, rules.main_rows).value();
  }

  static std::vector<Cut> cuts(Sequence& sequence, const ChunkRules& rules, int64_t cached = 0) {
    std::vector<Cut> all;
    sequence.start_prefill(cached, 0);
    while (sequence.num_computed() < sequence.num_tokens()) {
      const PrefillChunk chunk = next(sequence, rules);
      all.push_back({chunk.begin, chunk.end, chunk.pbs, chunk.draws_token});
      sequence.advance_computed(chunk.end);
    }
    return all;
  }
};

TEST_F(PrefillChunksTest, APbsPromptIsCutIntoCompleteSpansAsManyAsTheLaneHolds) {
  Sequence sequence = make(5700, true);
  EXPECT_EQ(cuts(sequence, kRules),
            (std::vector<Cut>{
                {0, 2048, true, false}, {2048, 4096, true, false}, {4096, 5700, true, true}}));
  ChunkRules odd = kRules;
  odd.main_rows = 2500;  // a span is never cut
  Sequence again = make(5700, true);
  EXPECT_EQ(cuts(again, odd)[0], (Cut{0, 2048, true, false}));
}

TEST_F(PrefillChunksTest, AChunkThatBeginsInsideASpanEndsWithOne) {
  Sequence sequence = make(9000, true);
  EXPECT_EQ(cuts(sequence, with(PrefixReuse::kAny), 1280)[0], (Cut{1280, 3072, true, false}));
}

TEST_F(PrefillChunksTest, WholePromptIsOneSpan) {
  ChunkRules whole = kRules;
  whole.span = 0;
  whole.main_rows = 4096;
  Sequence sequence = make(2700, true);
  EXPECT_EQ(cuts(sequence, whole), (std::vector<Cut>{{0, 2700, true, true}}));
  EXPECT_EQ(num_reusable(sequence, whole), 0);
  EXPECT_EQ(usable_prefix(sequence, 2688, whole), 0);
}

TEST_F(PrefillChunksTest, RecomputedOutputRunsDense) {
  Sequence sequence = make(2048, true);
  sequence.expect_token();
  sequence.append_token(7);
  EXPECT_EQ(cuts(sequence, kRules),
            (std::vector<Cut>{{0, 2048, true, false}, {2048, 2049, false, true}}));
}

TEST_F(PrefillChunksTest, ReusableTokensAreWholePagesOrSpansBeforeTheTail) {
  Sequence dense = make(1500, false);
  cuts(dense, kRules);
  EXPECT_EQ(num_reusable(dense, kRules), 1408);
  EXPECT_EQ(usable_prefix(dense, 1500, kRules), 1408);
  const auto reusable = [&](int64_t num_prompt) {
    Sequence pbs = make(num_prompt, true);
    cuts(pbs, kRules);
    return num_reusable(pbs, kRules);
  };
  EXPECT_EQ(reusable(1500), 1024);
  EXPECT_EQ(reusable(1280), 1024) << "its tail, 1024..1279, is in the span after";
  EXPECT_EQ(reusable(1279), 1024) << "blocks 8 and 9";
  EXPECT_EQ(reusable(1152), 0) << "block 7 is dense";
  EXPECT_EQ(reusable(1024), 0);
}

// What the tail of one prompt computed is not what another would have.
TEST_F(PrefillChunksTest, APromptComputesItsOwnTail) {
  Sequence shorter = make(2048, true);
  EXPECT_EQ(usable_prefix(shorter, 4096, kRules), 1024);
  Sequence longer = make(2400, true);
  EXPECT_EQ(usable_prefix(longer, 4096, kRules), 2048);
  EXPECT_EQ(usable_prefix(longer, 1700, kRules), 1024);
}

TEST_F(PrefillChunksTest, AFullyCachedPromptStillComputesItsLastToken) {
  Sequence dense = make(1024, false);
  EXPECT_EQ(usable_prefix(dense, 1024, kRules), 896);
  ChunkRules no_tail = kRules;
  no_tail.dense_tail = 0;
  Sequence pbs = make(2048, true);
  EXPECT_EQ(usable_prefix(pbs, 2048, no_tail), 1024);
}

TEST_F(PrefillChunksTest, AnyReusesPagesAndWholeSegments) {
  const ChunkRules any = with(PrefixReuse::kAny);
  Sequence pbs = make(2900, true);
  EXPECT_EQ(usable_prefix(pbs, 2700, any), 2560);
  EXPECT_EQ(usable_prefix(pbs, 2900, any), 2816);
  cuts(pbs, any);
  EXPECT_EQ(num_reusable(pbs, any), 2816);
  Sequence dense = make(2900, false);
  EXPECT_EQ(usable_prefix(dense, 2700, any), 2688);
}

TEST_F(PrefillChunksTest, OnlyTheFirstChunkAfterAReusedPrefixPoolsIt) {
  const ChunkRules any = with(PrefixReuse::kAny);
  Sequence sequence = make(9000, true);
  sequence.start_prefill(1280, 0);
  PrefillChunk chunk = next(sequence, any);
  EXPECT_TRUE(chunk.pools_prefix);
  sequence.advance_computed(chunk.end);
  EXPECT_FALSE(next(sequence, any).pools_prefix);
  Sequence exact = make(9000, true);
  exact.start_prefill(1024, 0);
  EXPECT_FALSE(next(exact, kRules).pools_prefix) << "spans before left their mean keys";
  Sequence cold = make(9000, true);
  cold.start_prefill(0, 0);
  EXPECT_FALSE(next(cold, any).pools_prefix);
}

TEST_F(PrefillChunksTest, ASpanThatDoesNotFitIsNotCut) {
  Sequence sequence = make(5700, true);
  EXPECT_FALSE(next_chunk(sequence, 0, kRules, 1000));
  EXPECT_EQ(next_chunk(sequence, 0, kRules, 1024)->end, 1024);
  EXPECT_EQ(next_chunk(sequence, 5120, kRules, 600)->end, 5700) << "the last one may be short";
  ChunkRules whole = kRules;
  whole.span = 0;
  EXPECT_FALSE(next_chunk(sequence, 0, whole, 5000));
  EXPECT_EQ(next_chunk(sequence, 0, whole, 5700)->end, 5700);
}

}  // namespace
}  // namespace pbserve::engine
