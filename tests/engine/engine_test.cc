// The whole engine on the demo model: what is promised about tokens, gaps, pages and ends.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <thread>

#include "kernels/core/device.h"
#include "kernels/core/graph.h"
#include "tests/engine/demo_engine.h"
#include "tests/support/test_sink.h"

namespace pbserve::engine {
namespace {

void expect_baseline(const Engine& engine) {
  for (int i = 0; i < 500 && engine.load().num_pages_used > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(engine.load().num_pages_used, 0);
  EXPECT_EQ(engine.load().num_running, 0);
  EXPECT_EQ(engine.load().num_waiting, 0);
}

// The batch that the promises about tokens are tested on: mixed lengths, dense and PBS, greedy and
// sampled.
std::vector<Request> mixed_batch(const Haystack& haystack) {
  std::vector<Request> batch;
  const size_t lengths[] = {100,  127,  128,  129,  255,  300,  511,  700,
                            1000, 1500, 2048, 2500, 3000, 4100, 9000, 20000};
  size_t begin = 0;
  for (size_t length : lengths) {
    Request request = make_request(haystack.slice(begin, length), 24);
    begin += length;
    if (batch.size() % 3 == 1) {
      request.sampling = {.temperature = 0.8f,
                          .top_p = 0.95f,
                          .top_k = 50,
                          .min_p = 0.01f,
                          .seed = 7 + batch.size()};
    }
    batch.push_back(std::move(request));
  }
  return batch;
}

std::vector<std::vector<int32_t>> run_together(Engine& engine, const std::vector<Request>& batch) {
  std::vector<Recording> recordings(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    EXPECT_TRUE(engine.submit(batch[i], recordings[i].sink()).ok());
  }
  std::vector<std::vector<int32_t>> tokens;
  for (Recording& recording : recordings) {
    EXPECT_TRUE(recording.wait().status.ok());
    tokens.push_back(recording.tokens());
  }
  return tokens;
}

TEST(EngineTest, SameTokensAloneInABatchColdWarmAndOverlapped) {
  EngineConfig config = demo_config();
  const std::unique_ptr<Engine> plain = make_engine(config);
  ASSERT_NE(plain, nullptr);
  const Haystack haystack(*plain);
  const std::vector<Request> batch = mixed_batch(haystack);

  std::vector<std::vector<int32_t>> alone;
  for (const Request& request : batch) {
    Completion completion;
    alone.push_back(generate(*plain, request, &completion));
    ASSERT_EQ(alone.back().size(), 24u);
    EXPECT_EQ(completion.usage.cached_tokens, 0);
    const bool pbs = completion.sparse.mode_used == SparseMode::kPbs;
    EXPECT_EQ(pbs, completion.usage.prompt_tokens >= config.pbs.min_tokens);
    EXPECT_EQ(pbs, completion.sparse.density < 0.9) << completion.sparse.density;
  }
  EXPECT_EQ(run_together(*plain, batch), alone) << "in a batch, warm cache";
  Completion warm;
  EXPECT_EQ(generate(*plain, batch.back(), &warm), alone.back()) << "alone, warm cache";
  EXPECT_EQ(warm.usage.cached_tokens, 19456)
      << "spans of 1,024 before the dense tail, which begins at 19,840";
  expect_baseline(*plain);

  config.scheduler.overlap = Overlap::kOn;
  config.scheduler.enable_prefix_caching = false;
  config.scheduler.prefill_slice_ms = 7;
  const std::unique_ptr<Engine> overlapped = make_engine(config);
  EXPECT_EQ(run_together(*overlapped, batch), alone) << "overlapped loop, cold, other slices";
  expect_baseline(*overlapped);
}

TEST(EngineTest, SameTokensWithAndWithoutGraphs) {
  EngineConfig config = demo_config();
  const auto choice = kernels::choose_device(config.device.kind);
  ASSERT_TRUE(choice.ok());
  if (!kernels::StepGraph::is_supported(choice->device)) GTEST_SKIP() << "no GPU: no graphs";
  const std::unique_ptr<Engine> graphs = make_engine(config);
  config.device.enforce_eager = true;
  const std::unique_ptr<Engine> eager = make_engine(config);
  const Haystack haystack(*graphs);
  std::vector<Request> batch;  // its size lies between those of two graphs
  for (size_t i = 0; i < 21; ++i) {
    batch.push_back(make_request(haystack.slice(i * 300, 20 + 7 * i), 16));
    batch.back().sampling.temperature = 0.4f * static_cast<float>(i % 3);
    batch.back().sampling.seed = i;
  }
  EXPECT_EQ(run_together(*graphs, batch), run_together(*eager, batch));
}

TEST(EngineTest, SameTokensWhenPagesRunOut) {
  EngineConfig config = demo_config();
  const std::unique_ptr<Engine> roomy = make_engine(config);
  const Haystack haystack(*roomy);
  config.model.max_model_len = 1280;
  config.device.kv_cache_bytes = 14 * 128 * 4096;  // 14 pages: about two of the sequences
  config.scheduler.enable_prefix_caching = false;
  const std::unique_ptr<Engine> tight = make_engine(config);
  ASSERT_NE(tight, nullptr);
  std::vector<Request> batch;
  for (size_t i = 0; i < 5; ++i) batch.push_back(make_request(haystack.slice(i * 500, 300), 350));
  std::vector<std::vector<int32_t>> alone;
  for (const Request& request : batch) alone.push_back(generate(*roomy, request));
  EXPECT_EQ(run_together(*tight, batch), alone);
  EXPECT_EQ(tight->metrics().render().find("pbserve:num_preemptions_total{model_name=\"demo\"} 0"),
            std::string::npos)
      << "the test must force preemptions";
  expect_baseline(*tight);
}

TEST(EngineTest, DensePagesOfPromptAndOutputAreReused) {
  const std::unique_ptr<Engine> engine = make_engine(demo_config());
  const Haystack haystack(*engine);
  std::vector<int32_t> first = haystack.slice(0, 500);
  const std::vector<int32_t> output = generate(*engine, make_request(first, 300));
  std::vector<int32_t> follow_up = first;
  follow_up.insert(follow_up.end(), output.begin(), output.end());
  Completion warm;
  const auto tokens = generate(*engine, make_request(follow_up, 20), &warm);
  EXPECT_EQ(warm.usage.cached_tokens, 768) << "799 tokens have K/V: six pages";
  Request salted = make_request(follow_up, 20);
  salted.cache_salt = "other tenant";
  Completion cold;
  EXPECT_EQ(generate(*engine, salted, &cold), tokens);
  EXPECT_EQ(cold.usage.cached_tokens, 0);
}

TEST(EngineTest, ALongPromptDoesNotFreezeAShortOne) {
  const EngineConfig config = demo_config();
  const std::unique_ptr<Engine> engine = make_engine(config);
  const Haystack haystack(*engine);
  Recording short_one;
  ASSERT_TRUE(
      engine->submit(make_request(haystack.slice(40000, 200), 3000), short_one.sink()).ok());
  short_one.wait_for_tokens(50);
  Recording long_one;
  Request long_request = make_request(haystack.slice(0, 30000), 1);
  long_request.sparse.mode = SparseMode::kDense;
  const Clock::time_point begin = Clock::now();
  ASSERT_TRUE(engine->submit(std::move(long_request), long_one.sink()).ok());
  ASSERT_TRUE(long_one.wait().status.ok());
  const Clock::time_point end = Clock::now();
  short_one.wait();
  double longest_ms = 0;
  double steps_ms = 0;
  int64_t produced = 0;
  for (size_t i = 1; i < short_one.times().size(); ++i) {
    const auto before = short_one.times()[i - 1];
    const auto after = short_one.times()[i];
    const double gap = std::chrono::duration<double, std::milli>(after - before).count();
    if (before >= begin && after <= end) {
      longest_ms = std::max(longest_ms, gap);
      ++produced;
    } else {
      steps_ms = std::max(steps_ms, gap);
    }
  }
  const double prefill_ms = std::chrono::duration<double, std::milli>(end - begin).count();
  std::cout << "30,000-token dense prefill in " << prefill_ms << " ms; meanwhile " << produced
            << " tokens, longest gap " << longest_ms << " ms, longest plain step " << steps_ms
            << " ms\n";
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // Under a sanitizer the smallest item, 128 rows at 30,000 tokens, is longer than a quarter slice.
  const double slices_ms = 2 * config.scheduler.prefill_slice_ms;
  EXPECT_GT(produced, prefill_ms / slices_ms);
  EXPECT_LT(longest_ms, slices_ms + steps_ms);
#endif
  for (size_t i = 1; i < long_one.progress().size(); ++i) {
    EXPECT_GE(long_one.progress()[i].processed_tokens, long_one.progress()[i - 1].processed_tokens);
  }
  EXPECT_GT(long_one.progress().size(), 2u);
}

TEST(EngineTest, CancelInEveryPhaseGivesThePagesBack) {
  const std::unique_ptr<Engine> engine = make_engine(demo_config());
  const Haystack haystack(*engine);
  const auto cancelled = [&](size_t length, auto wait) {
    Recording recording;
    const auto handle =
        engine->submit(make_request(haystack.slice(0, length), 5000), recording.sink());
    ASSERT_TRUE(handle.ok());
    wait(recording);
    engine->cancel(*handle);
    engine->cancel(*handle);
    EXPECT_EQ(recording.wait().reason, FinishReason::kCancelled);
    expect_baseline(*engine);
  };
  cancelled(300, [](Recording&) {});                              // queued or just started
  cancelled(16000, [](Recording& r) { r.wait_for_progress(); });  // between slices
  cancelled(1000, [](Recording& r) { r.wait_for_progress(); });   // short lane
  cancelled(300, [](Recording& r) { r.wait_for_tokens(3); });     // decoding
  engine->cancel(123456);                                         // unknown
  EXPECT_EQ(generate(*engine, make_request(haystack.slice(0, 300), 3)).size(), 3u);
}

// They wait for the slice to end as requests do, in any number.
TEST(EngineTest, CancelsTakeNoPlaceInTheQueue) {
  EngineConfig config = demo_config();
  config.scheduler.max_num_queued_reqs = 2;
  config.scheduler.prefill_slice_ms = 2000;
  const std::unique_ptr<Engine> engine = make_engine(config);
  const Haystack haystack(*engine);
  Recording first, second;
  const auto handle = engine->submit(make_request(haystack.slice(0, 20000), 1), first.sink());
  ASSERT_TRUE(handle.ok());
  first.wait_for_progress();
  for (int i = 0; i < 10; ++i) engine->cancel(1'000'000);  // unknown
  EXPECT_EQ(engine->load().num_waiting, 0);
  EXPECT_TRUE(engine->submit(make_request(haystack.slice(0, 100), 1), second.sink()).ok());
  engine->cancel(*handle);
  EXPECT_EQ(first.wait().reason, FinishReason::kCancelled);
  EXPECT_TRUE(second.wait().status.ok());
}

TEST(EngineTest, DeadlinesEndQueuedAndRunningRequests) {
  const std::unique_ptr<Engine> engine = make_engine(demo_config());
  const Haystack haystack(*engine);
  Request request = make_request(haystack.slice(0, 20000), 12000);
  request.deadline = Clock::now() + std::chrono::milliseconds(300);
  Recording recording;
  ASSERT_TRUE(engine->submit(std::move(request), recording.sink()).ok());
  EXPECT_EQ(recording.wait().status.code(), absl::StatusCode::kDeadlineExceeded);
  expect_baseline(*engine);
}

TEST(EngineTest, StopRules) {
  const std::unique_ptr<Engine> engine = make_engine(demo_config());
  Request request;
  request.prompt = ChatPrompt{.messages_json = R"([{"role":"user","content":"Say something."}])",
                              .tools_json = "",
                              .template_kwargs_json = ""};
  request.stop.max_tokens = 40;
  request.stop.ignore_eos = true;
  Recording free_run;
  ASSERT_TRUE(engine->submit(request, free_run.sink()).ok());
  free_run.wait();
  const std::string text = free_run.text();
  ASSERT_GT(text.size(), 20u);

  request.stop.strings = {text.substr(8, 5)};
  Recording stopped;
  ASSERT_TRUE(engine->submit(request, stopped.sink()).ok());
  const Completion& done = stopped.wait();
  EXPECT_EQ(done.reason, FinishReason::kStop);
  EXPECT_EQ(done.matched_stop, text.substr(8, 5));
  EXPECT_EQ(stopped.text(), text.substr(0, text.find(text.substr(8, 5))));
  EXPECT_TRUE(done.status.ok()) << done.status;
  expect_baseline(*engine);

  request.stop.strings.clear();
  request.stop.token_ids = {free_run.tokens()[5]};
  Recording by_id;
  ASSERT_TRUE(engine->submit(request, by_id.sink()).ok());
  EXPECT_EQ(by_id.wait().reason, FinishReason::kStop);
  const auto first = std::ranges::find(free_run.tokens(), free_run.tokens()[5]);
  EXPECT_EQ(by_id.wait().usage.completion_tokens, first - free_run.tokens().begin() + 1);

  request.stop.min_tokens = 20;
  Recording delayed;
  ASSERT_TRUE(engine->submit(request, delayed.sink()).ok());
  EXPECT_GT(delayed.wait().usage.completion_tokens, 20);
}

TEST(EngineTest, RefusalsNameFieldValueAndLimit) {
  EngineConfig config = demo_config();
  config.model.max_model_len = 1000;
  const std::unique_ptr<Engine> engine = make_engine(config);
  const std::vector<int32_t> ok(10, 5);
  const auto refused = [&](Request request, const char* expected) {
    Recording recording;
    const auto handle = engine->submit(std::move(request), recording.sink());
    EXPECT_EQ(handle.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(handle.status().ToString().find(expected), std::string::npos) << handle.status();
  };
  refused(make_request({}, 5), "prompt has no tokens");
  refused(make_request(std::vector<int32_t>(1000, 5), 1), "prompt has 1000 tokens, at most 999");
  refused(make_request(ok, 991), "max_tokens is 991, must be in [1, 990]");
  refused(make_request({5, 4096}, 5), "prompt[1] is 4096, must be a token id in [0, 4095]");
  refused(make_request({-1}, 5), "prompt[0] is -1");
  Request request = make_request(ok, 5);
  request.sampling.temperature = -0.5f;
  refused(request, "temperature is -0.5, must be in [0, 2]");
  request = make_request(ok, 5);
  request.sparse.threshold = 0.001f;
  refused(request, "sparse_attention.threshold is 0.001, must be in [0.05, 1]");
  request = make_request(ok, 5);
  request.stop.strings = std::vector<std::string>(17, "x");
  refused(request, "stop has 17 strings, at most 16");
  request = make_request(ok, 5);
  request.stop.min_tokens = 6;
  refused(request, "min_tokens is 6, must be in [0, 5]");
  request = make_request(ok, 5);
  request.prompt = std::string("\xff");
  refused(request, "UTF-8");
}

TEST(EngineTest, AContextThatCannotFitIsRefusedAtStart) {
  EngineConfig config = demo_config();
  config.model.max_model_len = 32768;
  config.device.kv_cache_bytes = 1 << 20;
  const auto engine = Engine::create(config);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(engine.status().ToString().find("a context of 32768 tokens needs"), std::string::npos)
      << engine.status();
  config.device.kv_cache_bytes = int64_t{1} << 45;
  const auto boundless = Engine::create(config);
  EXPECT_EQ(boundless.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(boundless.status().ToString().find("device.kv_cache_bytes is 35184372088832"),
            std::string::npos)
      << boundless.status();
  config.device.kv_cache_bytes = 1 << 20;
  config.model.max_model_len = 0;
  const std::unique_ptr<Engine> shrunk = make_engine(config);
  EXPECT_EQ(shrunk->info().max_model_len, shrunk->info().num_pages * 128);
}

TEST(EngineTest, QueueLimitsAndDrain) {
  EngineConfig config = demo_config();
  config.scheduler.max_num_queued_reqs = 2;
  config.scheduler.max_num_seqs = 1;
  const std::unique_ptr<Engine> engine = make_engine(config);
  const Haystack haystack(*engine);
  std::vector<Recording> recordings(12);
  int refused = 0;
  std::vector<Recording*> running;
  for (Recording& recording : recordings) {
    const auto handle = engine->submit(make_request(haystack.slice(0, 200), 100), recording.sink());
    if (handle.ok()) {
      running.push_back(&recording);
    } else {
      EXPECT_EQ(handle.status().code(), absl::StatusCode::kResourceExhausted);
      ++refused;
    }
  }
  EXPECT_GT(refused, 5);
  EXPECT_TRUE(engine->drain(60000));
  for (Recording* recording : running) EXPECT_TRUE(recording->wait().status.ok());
  Recording late;
  EXPECT_EQ(engine->submit(make_request(haystack.slice(0, 10), 1), late.sink()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(EngineTest, DestructionEndsEveryRequest) {
  std::unique_ptr<Engine> engine = make_engine(demo_config());
  const Haystack haystack(*engine);
  std::vector<Recording> recordings(4);
  for (Recording& recording : recordings) {
    ASSERT_TRUE(engine->submit(make_request(haystack.slice(0, 3000), 5000), recording.sink()).ok());
  }
  recordings[0].wait_for_progress();
  engine.reset();
  for (Recording& recording : recordings) {
    EXPECT_EQ(recording.wait().reason, FinishReason::kCancelled);
  }
}

}  // namespace
}  // namespace pbserve::engine
