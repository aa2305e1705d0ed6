// The whole engine with a small KV cache: what a host tier brings back, and that it changes nothing
// else.
#include <gtest/gtest.h>

#include "tests/engine/demo_engine.h"

namespace pbserve::engine {
namespace {

constexpr int64_t kPageBytes = 128 * 4096 + 4096;  // of the demo model: K, V and moments

class EngineHostTier : public ::testing::TestWithParam<SparseMode> {
 protected:
  static EngineConfig small_config(int64_t num_host_pages) {
    EngineConfig config = demo_config();
    config.model.max_model_len = 8192;
    config.device.kv_cache_bytes = 72 * kPageBytes;
    config.device.kv_offload_bytes = num_host_pages * kPageBytes;
    return config;
  }

  // The tokens of a prompt of 5,000 tokens, which has 40 pages.
  std::vector<int32_t> ask(Engine& engine, size_t begin, int64_t* num_cached,
                           const std::string& salt = "") {
    Request request = make_request(haystack_.slice(begin, 5000), 20);
    request.sparse.mode = GetParam();
    request.cache_salt = salt;
    Completion completion;
    std::vector<int32_t> tokens = generate(engine, request, &completion);
    EXPECT_EQ(completion.sparse.mode_used, GetParam());
    *num_cached = completion.usage.cached_tokens;
    return tokens;
  }

  std::unique_ptr<Engine> roomy_ = make_engine(demo_config());
  Haystack haystack_{*roomy_};
};
INSTANTIATE_TEST_SUITE_P(Modes, EngineHostTier,
                         ::testing::Values(SparseMode::kDense, SparseMode::kPbs),
                         [](const auto& test) {
                           return test.param == SparseMode::kDense ? "dense" : "pbs";
                         });

TEST_P(EngineHostTier, AnEvictedPromptComesBackAndGivesTheTokensOfAColdCache) {
  const std::unique_ptr<Engine> without = make_engine(small_config(0));
  const std::unique_ptr<Engine> with = make_engine(small_config(200));
  ASSERT_TRUE(without != nullptr && with != nullptr);
  int64_t num_cached = 0;
  const std::vector<int32_t> cold = ask(*roomy_, 0, &num_cached);
  EXPECT_EQ(num_cached, 0);
  EXPECT_EQ(ask(*roomy_, 0, &num_cached), cold);
  const int64_t of_a_warm_cache = num_cached;
  EXPECT_GE(of_a_warm_cache, 3072);
  for (Engine* engine : {without.get(), with.get()}) {
    for (const size_t begin : {0, 10000, 20000}) ask(*engine, begin, &num_cached);
    EXPECT_EQ(ask(*engine, 0, &num_cached), cold);
    EXPECT_EQ(num_cached, engine == with.get() ? of_a_warm_cache : 0);
    EXPECT_EQ(engine->load().num_pages_used, 0);
  }
  const std::string metrics = with->metrics().render();
  for (const char* name :
       {"kv_cache_tier_hits_total{model_name=\"demo\",tier=\"host\"} ",
        "kv_cache_tier_copied_pages_total{model_name=\"demo\",tier=\"host\"} ",
        "kv_cache_tier_copied_bytes_total{model_name=\"demo\",tier=\"device\"} "}) {
    EXPECT_NE(metrics.find(name), std::string::npos) << name;
    EXPECT_EQ(metrics.find(std::string(name) + "0\n"), std::string::npos) << name;
  }
}

// Conversations in turn, each of which evicts the others, and all of them at once.
TEST_P(EngineHostTier, ConversationsThatEvictEachOtherGoOn) {
  const std::unique_ptr<Engine> engine = make_engine(small_config(200));
  ASSERT_NE(engine, nullptr);
  int64_t num_cached = 0;
  std::vector<std::vector<int32_t>> cold;
  for (size_t user = 0; user < 3; ++user) {
    cold.push_back(ask(*roomy_, 10000 * user, &num_cached));
  }
  for (int round = 0; round < 2; ++round) {
    for (size_t user = 0; user < 3; ++user) {
      EXPECT_EQ(ask(*engine, 10000 * user, &num_cached), cold[user]);
      EXPECT_EQ(num_cached > 0, round > 0);
    }
  }
  std::vector<std::unique_ptr<Recording>> recordings;
  for (size_t user = 0; user < 3; ++user) {
    recordings.push_back(std::make_unique<Recording>());
    Request request = make_request(haystack_.slice(10000 * user, 5000), 20);
    request.sparse.mode = GetParam();
    ASSERT_TRUE(engine->submit(std::move(request), recordings.back()->sink()).ok());
  }
  for (size_t user = 0; user < 3; ++user) {
    EXPECT_TRUE(recordings[user]->wait().status.ok());
    EXPECT_EQ(recordings[user]->tokens(), cold[user]);
  }
}

TEST(EngineHostTierStart, ATierThatDoesNotFitIsRefused) {
  EngineConfig config = demo_config();
  config.device.kv_cache_bytes = 80 * kPageBytes;
  config.model.max_model_len = 8192;
  config.device.kv_offload_bytes = int64_t{1} << 45;
  const absl::Status status = Engine::create(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.ToString().find("device.kv_offload_bytes is 35184372088832"), std::string::npos)
      << status;
}

}  // namespace
}  // namespace pbserve::engine
