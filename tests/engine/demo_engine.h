// Engines that serve the demo model, and prompts for them.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tests/support/test_sink.h"

namespace pbserve::engine {

inline EngineConfig demo_config() {
  EngineConfig config;
  config.model.path = PBSERVE_SOURCE_DIR "/models/demo";
  config.device.deterministic = true;               // on a GPU, where there is one;
  config.device.kv_cache_bytes = int64_t{1} << 30;  // and engines side by side
  config.pbs.min_tokens = 3072;
  return config;
}

inline std::unique_ptr<Engine> make_engine(const EngineConfig& config) {
  auto engine = Engine::create(config);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

// Natural text as token ids; different offsets give prompts that share nothing.
class Haystack {
 public:
  explicit Haystack(const Engine& engine) {
    std::ifstream file(PBSERVE_SOURCE_DIR "/tests/bench/haystack/postgresql-15.txt");
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    for (size_t begin = 0; begin < all.size() && ids_.size() < 120000; begin += 60000) {
      auto ids = engine.tokenize(all.substr(begin, 60000), false);
      if (ids.ok()) ids_.insert(ids_.end(), ids->begin(), ids->end());
    }
  }
  std::vector<int32_t> slice(size_t begin, size_t count) const {
    return {ids_.begin() + static_cast<std::ptrdiff_t>(begin),
            ids_.begin() + static_cast<std::ptrdiff_t>(begin + count)};
  }

 private:
  std::vector<int32_t> ids_;
};

inline Request make_request(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.id = "test";
  request.prompt = std::move(prompt);
  request.stop.max_tokens = max_tokens;
  request.stop.ignore_eos = true;
  return request;
}

// The tokens of a request that must succeed, and how it ended.
inline std::vector<int32_t> generate(Engine& engine, Request request,
                                     Completion* completion = nullptr) {
  Recording recording;
  const auto handle = engine.submit(std::move(request), recording.sink());
  EXPECT_TRUE(handle.ok()) << handle.status();
  if (!handle.ok()) return {};
  const Completion& done = recording.wait();
  EXPECT_TRUE(done.status.ok()) << done.status;
  if (completion != nullptr) *completion = done;
  return recording.tokens();
}

}  // namespace pbserve::engine
