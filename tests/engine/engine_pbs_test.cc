// PBS in the whole engine: what a conversation may reuse, what is reported, the published preset.
#include <gtest/gtest.h>

#include "tests/engine/demo_engine.h"

namespace pbserve::engine {
namespace {

// What each turn of a conversation gives, and how much of it was found in the cache.
struct Turns {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<int64_t> cached;
};

Turns converse(Engine& engine, const Haystack& haystack, bool salt_each_turn) {
  Turns turns;
  std::vector<int32_t> conversation = haystack.slice(0, 5000);
  for (int turn = 0; turn < 8; ++turn) {
    Request request = make_request(conversation, 30);
    if (salt_each_turn) request.cache_salt = std::to_string(turn);
    Completion completion;
    const auto answer = generate(engine, request, &completion);
    EXPECT_EQ(completion.sparse.mode_used, SparseMode::kPbs);
    turns.tokens.push_back(answer);
    turns.cached.push_back(completion.usage.cached_tokens);
    conversation.insert(conversation.end(), answer.begin(), answer.end());
    const auto question = haystack.slice(6000 + static_cast<size_t>(turn) * 700, 400);
    conversation.insert(conversation.end(), question.begin(), question.end());
  }
  return turns;
}

TEST(EnginePbsTest, AConversationOfEightTurnsGivesTheTokensOfAColdCache) {
  const std::unique_ptr<Engine> engine = make_engine(demo_config());
  ASSERT_NE(engine, nullptr);
  const Haystack haystack(*engine);
  const Turns warm = converse(*engine, haystack, /*salt_each_turn=*/false);
  const Turns cold = converse(*engine, haystack, /*salt_each_turn=*/true);
  EXPECT_EQ(warm.tokens, cold.tokens);
  for (size_t turn = 0; turn < 8; ++turn) {
    const int64_t before = 5000 + 430 * (static_cast<int64_t>(turn) - 1);  // the prompt last turn
    EXPECT_EQ(cold.cached[turn], 0);
    EXPECT_GE(warm.cached[turn], turn == 0 ? 0 : before - 1279) << turn;
  }
}

// With `any` a turn goes on from pages of every kind: those of PBS, of its dense tail, of decode
// and, where the mode changes, of dense prefill.
TEST(EnginePbsTest, AnyReusesAllCompletePages) {
  EngineConfig config = demo_config();
  config.pbs.prefix_reuse = PrefixReuse::kAny;
  config.pbs.audit = 8;
  const std::unique_ptr<Engine> engine = make_engine(config);
  ASSERT_NE(engine, nullptr);
  const Haystack haystack(*engine);
  const Turns warm = converse(*engine, haystack, /*salt_each_turn=*/false);
  for (size_t turn = 1; turn < 8; ++turn) {
    const int64_t known = 5000 + 430 * (static_cast<int64_t>(turn) - 1) + 29;
    EXPECT_EQ(warm.cached[turn], known / 256 * 256) << turn;
  }
  Request dense = make_request(haystack.slice(20000, 4000), 1);
  dense.sparse.mode = SparseMode::kDense;
  generate(*engine, dense);
  Completion completion;
  generate(*engine, make_request(haystack.slice(20000, 6000), 1), &completion);
  EXPECT_EQ(completion.sparse.mode_used, SparseMode::kPbs);
  EXPECT_EQ(completion.usage.cached_tokens, 3840);
  ASSERT_TRUE(completion.sparse.coverage.has_value());
  EXPECT_GT(completion.sparse.coverage->mean, 0.5) << "moments of dense pages are pooled";
}

TEST(EnginePbsTest, CoverageIsReportedBesideDensity) {
  EngineConfig config = demo_config();
  config.pbs.audit = 8;
  const std::unique_ptr<Engine> engine = make_engine(config);
  ASSERT_NE(engine, nullptr);
  const Haystack haystack(*engine);
  const auto coverage_at = [&](float threshold) {
    Request request = make_request(haystack.slice(0, 6000), 1);
    request.sparse = {.mode = SparseMode::kPbs, .threshold = threshold};
    Completion completion;
    generate(*engine, request, &completion);
    EXPECT_TRUE(completion.sparse.coverage.has_value());
    return completion.sparse.coverage.value_or(SparseReport::Coverage{});
  };
  const SparseReport::Coverage usual =
      coverage_at(kernels::default_threshold(kernels::PbsScorer::kMass));
  EXPECT_GT(usual.mean, 0.8);
  EXPECT_LE(usual.lowest_layer, usual.mean);
  EXPECT_LE(usual.lowest_head, usual.lowest_layer);
  EXPECT_LT(coverage_at(0.2f).mean, usual.mean);
  EXPECT_EQ(coverage_at(1.0f).lowest_head, 1.0);
  Request dense = make_request(haystack.slice(0, 6000), 1);
  dense.sparse.mode = SparseMode::kDense;
  Completion completion;
  generate(*engine, dense, &completion);
  EXPECT_FALSE(completion.sparse.coverage.has_value());
}

// The published method is a whole prompt in one span; nothing of it is reused.
TEST(EnginePbsTest, ThePaperPresetServes) {
  EngineConfig config = demo_config();
  config.model.max_model_len = 12000;
  apply_paper_preset(config.pbs);
  const std::unique_ptr<Engine> engine = make_engine(config);
  ASSERT_NE(engine, nullptr);
  const Haystack haystack(*engine);
  Completion first, second;
  const auto tokens = generate(*engine, make_request(haystack.slice(0, 9500), 8), &first);
  EXPECT_EQ(first.sparse.mode_used, SparseMode::kPbs);
  EXPECT_LT(first.sparse.density, 0.7);
  EXPECT_EQ(generate(*engine, make_request(haystack.slice(0, 9500), 8), &second), tokens);
  EXPECT_EQ(second.usage.cached_tokens, 0);
}

}  // namespace
}  // namespace pbserve::engine
