// cache_hold_s through the whole engine: what a request hears, what others find, what they break.
#include <gtest/gtest.h>

#include "tests/engine/demo_engine.h"

namespace pbserve::engine {
namespace {

constexpr int64_t kPageBytes = 128 * 4096 + 4096;  // of the demo model: K, V and moments
constexpr int64_t kNumPages = 72;

class EngineHold : public ::testing::Test {
 protected:
  static EngineConfig small_config() {
    EngineConfig config = demo_config();
    config.model.max_model_len = 8192;
    config.device.kv_cache_bytes = kNumPages * kPageBytes;
    return config;
  }

  Usage ask(Engine& engine, size_t begin, size_t num_tokens, float hold_s = 0) {
    Request request = make_request(haystack_.slice(begin, num_tokens), 4);
    request.sparse.mode = SparseMode::kDense;
    request.cache_hold_s = hold_s;
    Completion completion;
    generate(engine, request, &completion);
    return completion.usage;
  }

  std::unique_ptr<Engine> engine_ = make_engine(small_config());
  Haystack haystack_{*engine_};
};

bool has(const Engine& engine, const std::string& name, const std::string& value) {
  const std::string line = "pbserve:" + name + "{model_name=\"demo\"} " + value + "\n";
  return engine.metrics().render().find(line) != std::string::npos;
}

TEST_F(EngineHold, AHeldPromptOutlivesOthersAndOneThatNeedsItsPagesIsServed) {
  constexpr int64_t kHeld = 3000 / 128 * 128;
  EXPECT_EQ(ask(*engine_, 0, 3000).cache_held_tokens, std::nullopt) << "nobody asked";
  EXPECT_EQ(ask(*engine_, 0, 3000, 600).cache_held_tokens, kHeld);
  EXPECT_TRUE(has(*engine_, "kv_cache_holds", "1"));
  EXPECT_TRUE(has(*engine_, "kv_cache_held_pages", std::to_string(kHeld / 128)));
  for (const size_t begin : {10000, 20000, 30000}) ask(*engine_, begin, 4500);
  EXPECT_EQ(ask(*engine_, 0, 3000).cached_tokens, kHeld);
  EXPECT_EQ(ask(*engine_, 10000, 4500, 600).cache_held_tokens, (kNumPages / 2 * 128) - kHeld)
      << "what the share has left";
  EXPECT_TRUE(has(*engine_, "kv_cache_cut_holds_total", "1"));
  EXPECT_EQ(ask(*engine_, 40000, 8000).completion_tokens, 4);
  EXPECT_TRUE(has(*engine_, "kv_cache_broken_holds_total", "2"));
  EXPECT_TRUE(has(*engine_, "kv_cache_held_pages", "0"));
  EXPECT_TRUE(has(*engine_, "prefix_cache_salts", "1"));
}

TEST_F(EngineHold, WhatMayNotBeHeldIsRefusedWithItsLimit) {
  Recording recording;
  const auto refusal = [&](Engine& engine, float hold_s) {
    Request request = make_request(haystack_.slice(0, 10), 4);
    request.cache_hold_s = hold_s;
    return std::string(engine.submit(std::move(request), recording.sink()).status().message());
  };
  EXPECT_EQ(refusal(*engine_, 3601), "cache_hold_s is 3601, must be in [0, 3600]");
  EXPECT_EQ(refusal(*engine_, -1), "cache_hold_s is -1, must be in [0, 3600]");
  EngineConfig config = small_config();
  config.scheduler.enable_prefix_caching = false;
  EXPECT_EQ(refusal(*make_engine(config), 1),
            "cache_hold_s is 1, must be 0: this server holds no pages");
}

}  // namespace
}  // namespace pbserve::engine
