// A request's arrival: what its client is told, and whether it is taken at all.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/engine.h"
#include "tests/engine/demo_engine.h"
#include "tests/support/test_sink.h"

namespace pbserve::engine {
namespace {

// What a client is told at the start is what it is billed for at the end, also where the cache
// holds more than the prompt may use: its last token, and of PBS the last spans, are computed.
TEST(EngineArrival, AcceptedNamesTheTokensThatWillBeReused) {
  const EngineConfig config = demo_config();
  const std::unique_ptr<Engine> engine = make_engine(config);
  const Haystack haystack(*engine);
  const auto reused = [&](int64_t len, SparseMode mode) {
    Request request = make_request(haystack.slice(0, static_cast<size_t>(len)), 1);
    request.sparse.mode = mode;
    Recording recording;
    EXPECT_TRUE(engine->submit(request, recording.sink()).ok());
    const int64_t used = recording.wait().usage.cached_tokens;
    EXPECT_EQ(recording.accepted().cached_tokens, used) << len;
    return used;
  };
  EXPECT_EQ(reused(768, SparseMode::kDense), 0);
  EXPECT_EQ(reused(768, SparseMode::kDense), 640) << "six pages are cached, the last token is not";
  EXPECT_EQ(reused(8192, SparseMode::kPbs), 0);
  EXPECT_LT(reused(4096, SparseMode::kPbs), 4096) << "the dense tail of the shorter prompt";
}

// A request that is taken while the server begins to drain is waited for or cancelled: none is
// left behind.
TEST(EngineArrival, NoRequestSlipsPastADrain) {
  const std::unique_ptr<Engine> engine = make_engine(demo_config());
  const Haystack haystack(*engine);
  constexpr int kThreads = 4;
  std::vector<std::vector<std::unique_ptr<Recording>>> taken(kThreads);
  std::vector<std::thread> clients;
  std::atomic<int> num_refused = 0;
  for (int i = 0; i < kThreads; ++i) {
    clients.emplace_back([&, i] {
      while (num_refused.load() <= i) {
        auto recording = std::make_unique<Recording>();
        const auto handle =
            engine->submit(make_request(haystack.slice(0, 10), 5000), recording->sink());
        if (handle.ok()) {
          taken[static_cast<size_t>(i)].push_back(std::move(recording));
        } else {
          num_refused += absl::IsUnavailable(handle.status()) ? kThreads : 0;
        }
      }
    });
  }
  while (engine->load().num_running == 0) std::this_thread::yield();
  EXPECT_FALSE(engine->drain(1));
  for (std::thread& client : clients) client.join();
  for (const auto& recordings : taken) {
    for (const auto& recording : recordings) {
      EXPECT_EQ(recording->wait().reason, FinishReason::kCancelled);
    }
  }
  EXPECT_TRUE(engine->drain(0));
}

}  // namespace
}  // namespace pbserve::engine
