// Metrics: the names, labels and values that a scraper sees.
#include "engine/metrics.h"

#include <gtest/gtest.h>

#include <sstream>
#include <thread>
#include <vector>

namespace pbserve::engine {
namespace {

// The value of `sample`, a name with all its labels, in the exposition format; -1 if it is absent.
double value_of(const Metrics& metrics, const std::string& sample) {
  const std::string start = "pbserve:" + sample + " ";
  std::istringstream lines(metrics.render());
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(start)) return std::stod(line.substr(start.size()));
  }
  return -1;
}

Completion completion_of(FinishReason reason) {
  Completion completion;
  completion.reason = reason;
  completion.usage = {.prompt_tokens = 3000, .cached_tokens = 0, .completion_tokens = 40};
  completion.timings = {.queue_ms = 500, .prefill_ms = 2000, .generation_ms = 4000};
  return completion;
}

TEST(Metrics, Gauges) {
  Metrics metrics("demo");
  metrics.set_gauges({.num_running = 3,
                      .num_waiting = 2,
                      .num_pages_used = 25,
                      .num_pages_cached = 50,
                      .num_pages = 100});
  EXPECT_EQ(value_of(metrics, "num_requests_running{model_name=\"demo\"}"), 3);
  EXPECT_EQ(value_of(metrics, "num_requests_waiting{model_name=\"demo\"}"), 2);
  EXPECT_EQ(value_of(metrics, "kv_cache_usage_perc{model_name=\"demo\"}"), 0.25);
  EXPECT_EQ(value_of(metrics, "kv_cache_cached_perc{model_name=\"demo\"}"), 0.5);
}

TEST(Metrics, WhoKeepsAndWhoFillsTheCache) {
  Metrics metrics("demo");
  for (const int64_t times : {1, 2}) {
    metrics.set_cache_use({.num_holds = 2,
                           .num_pages_held = 30,
                           .num_holds_broken = 3 * times,
                           .num_holds_cut = 4 * times,
                           .num_salts = 5,
                           .num_pages_of_largest_salt = 60});
  }
  const auto of = [&](const std::string& name) {
    return value_of(metrics, name + "{model_name=\"demo\"}");
  };
  EXPECT_EQ(of("kv_cache_holds"), 2);
  EXPECT_EQ(of("kv_cache_held_pages"), 30);
  EXPECT_EQ(of("kv_cache_broken_holds_total"), 6);
  EXPECT_EQ(of("kv_cache_cut_holds_total"), 8);
  EXPECT_EQ(of("prefix_cache_salts"), 5);
  EXPECT_EQ(of("prefix_cache_largest_salt_pages"), 60);
}

TEST(Metrics, TiersOfTheCache) {
  Metrics metrics("demo");
  EXPECT_EQ(value_of(metrics, "kv_cache_tier_hits_total{model_name=\"demo\",tier=\"host\"}"), 0);
  for (const int64_t times : {1, 2}) {  // counts since the start, given again and again
    metrics.set_tiers({.num_pages_used = 3,
                       .num_pages_cached = 4,
                       .num_pages_free = 5,
                       .page_bytes = 100,
                       .num_pages_hit = 7 * times,
                       .num_pages_copied = 2 * times},
                      {.num_pages_cached = 6,
                       .num_pages_free = 1,
                       .page_bytes = 100,
                       .num_pages_hit = 2 * times,
                       .num_pages_copied = 9 * times},
                      /*num_pages_dropped=*/11 * times);
  }
  const auto of_tier = [&](const std::string& name, const std::string& tier) {
    return value_of(metrics, name + "{model_name=\"demo\",tier=\"" + tier + "\"}");
  };
  const auto pages = [&](const std::string& tier, const std::string& state) {
    return value_of(metrics, "kv_cache_tier_pages{model_name=\"demo\",state=\"" + state +
                                 "\",tier=\"" + tier + "\"}");
  };
  EXPECT_EQ(pages("device", "used"), 3);
  EXPECT_EQ(pages("device", "cached"), 4);
  EXPECT_EQ(pages("device", "free"), 5);
  EXPECT_EQ(pages("host", "cached"), 6);
  EXPECT_EQ(pages("host", "free"), 1);
  EXPECT_EQ(of_tier("kv_cache_tier_bytes", "device"), 700);
  EXPECT_EQ(of_tier("kv_cache_tier_bytes", "host"), 600);
  EXPECT_EQ(of_tier("kv_cache_tier_hits_total", "device"), 14);
  EXPECT_EQ(of_tier("kv_cache_tier_hits_total", "host"), 4);
  EXPECT_EQ(of_tier("kv_cache_tier_copied_pages_total", "host"), 18);
  EXPECT_EQ(of_tier("kv_cache_tier_copied_bytes_total", "device"), 400);
  EXPECT_EQ(value_of(metrics, "kv_cache_dropped_pages_total{model_name=\"demo\"}"), 22);
}

TEST(Metrics, CountersStandAtZeroAndGrow) {
  Metrics metrics("demo");
  EXPECT_EQ(value_of(metrics, "num_preemptions_total{model_name=\"demo\"}"), 0);
  metrics.count_preemption();
  metrics.count_prefix_cache(1000, 384);
  metrics.count_prefix_cache(1000, 0);
  metrics.observe_step(512, 8);
  metrics.observe_step(0, 8);
  metrics.observe_first_token(0.3);
  metrics.observe_inter_token(0.02);
  metrics.observe_inter_token(0.02);
  EXPECT_EQ(value_of(metrics, "num_preemptions_total{model_name=\"demo\"}"), 1);
  EXPECT_EQ(value_of(metrics, "prefix_cache_queries_total{model_name=\"demo\"}"), 2000);
  EXPECT_EQ(value_of(metrics, "prefix_cache_hits_total{model_name=\"demo\"}"), 384);
  EXPECT_EQ(value_of(metrics, "prompt_tokens_total{model_name=\"demo\"}"), 512);
  EXPECT_EQ(value_of(metrics, "generation_tokens_total{model_name=\"demo\"}"), 3);
  EXPECT_EQ(value_of(metrics, "iteration_tokens_total_sum{model_name=\"demo\"}"), 528);
  EXPECT_EQ(
      value_of(metrics, "time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.25\"}"), 0);
  EXPECT_EQ(value_of(metrics, "time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"0.5\"}"),
            1);
}

TEST(Metrics, AFinishedRequest) {
  Metrics metrics("demo");
  Completion completion = completion_of(FinishReason::kLength);
  completion.sparse = {.mode_used = SparseMode::kPbs,
                       .density = 0.22,
                       .layer_densities = {},
                       .coverage = {{.mean = 0.96}}};
  metrics.observe_finished(completion, 6.5);
  const auto sum = [&](const std::string& name) {
    return value_of(metrics, name + "_sum{model_name=\"demo\"}");
  };
  EXPECT_EQ(sum("e2e_request_latency_seconds"), 6.5);
  EXPECT_EQ(sum("request_queue_time_seconds"), 0.5);
  EXPECT_EQ(sum("request_prefill_time_seconds"), 2);
  EXPECT_EQ(sum("request_decode_time_seconds"), 4);
  EXPECT_EQ(sum("request_inference_time_seconds"), 6);
  EXPECT_EQ(sum("request_prompt_tokens"), 3000);
  EXPECT_EQ(sum("request_generation_tokens"), 40);
  EXPECT_EQ(value_of(metrics, "request_prefill_density_sum{model_name=\"demo\",mode=\"pbs\"}"),
            0.22);
  EXPECT_EQ(value_of(metrics, "request_prefill_density_count{model_name=\"demo\",mode=\"dense\"}"),
            0);
  EXPECT_EQ(sum("request_prefill_coverage"), 0.96);
}

TEST(Metrics, FinishReasons) {
  Metrics metrics("demo");
  metrics.observe_finished(completion_of(FinishReason::kStop), 1);
  metrics.observe_finished(completion_of(FinishReason::kStop), 1);
  metrics.observe_finished(completion_of(FinishReason::kLength), 1);
  metrics.observe_finished(completion_of(FinishReason::kCancelled), 1);
  const auto count = [&](const std::string& reason) {
    return value_of(
        metrics, "request_success_total{model_name=\"demo\",finished_reason=\"" + reason + "\"}");
  };
  EXPECT_EQ(count("stop"), 2);
  EXPECT_EQ(count("length"), 1);
  EXPECT_EQ(count("abort"), 1);
  EXPECT_EQ(count("error"), 0);
}

TEST(Metrics, PhasesThatWereNotReachedAreNotObserved) {
  Metrics metrics("demo");
  Completion completion;
  completion.reason = FinishReason::kCancelled;
  metrics.observe_finished(completion, 1);
  for (const char* name : {"request_queue_time_seconds", "request_prefill_time_seconds",
                           "request_decode_time_seconds", "request_inference_time_seconds"}) {
    EXPECT_EQ(value_of(metrics, std::string(name) + "_count{model_name=\"demo\"}"), 0) << name;
  }
}

// Tools that were made for vLLM's names, of any age, find what they look for.
TEST(Metrics, ThePrefixAndTheOldNames) {
  Metrics metrics("demo", "vllm");
  metrics.set_cache_config(128, 100);
  metrics.set_gauges({.num_pages_used = 25, .num_pages = 100});
  metrics.observe_inter_token(0.02);
  Completion completion = completion_of(FinishReason::kStop);
  completion.timings.mean_inter_token_ms = 100;
  metrics.observe_finished(completion, 1);
  const std::string text = metrics.render();
  for (const char* line :
       {"vllm:cache_config_info{model_name=\"demo\",block_size=\"128\",num_gpu_blocks=\"100\"} 1\n",
        "vllm:gpu_cache_usage_perc{model_name=\"demo\"} 0.25\n",
        "vllm:time_per_output_token_seconds_count{model_name=\"demo\"} 1\n",
        "vllm:request_time_per_output_token_seconds_sum{model_name=\"demo\"} 0.1\n",
        "vllm:request_max_num_generation_tokens_sum{model_name=\"demo\"} 40\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  EXPECT_EQ(text.find("pbserve:"), std::string::npos);
}

TEST(Metrics, EveryHistogramReachesLongRequests) {
  Metrics metrics("demo");
  metrics.observe_first_token(1000);
  EXPECT_EQ(
      value_of(metrics, "time_to_first_token_seconds_bucket{model_name=\"demo\",le=\"2560\"}"), 1);
  metrics.observe_finished(completion_of(FinishReason::kStop), 5000);
  EXPECT_EQ(
      value_of(metrics, "e2e_request_latency_seconds_bucket{model_name=\"demo\",le=\"7680\"}"), 1);
}

TEST(Metrics, ThreadsMayUpdateAndRenderTogether) {
  constexpr int kNumThreads = 4;
  constexpr int kNumUpdates = 500;
  Metrics metrics("demo");
  std::vector<std::thread> threads;
  for (int i = 0; i < kNumThreads; ++i) {
    threads.emplace_back([&metrics, i] {
      for (int update = 0; update < kNumUpdates; ++update) {
        metrics.observe_inter_token(0.01);
        metrics.count_preemption();
        if (i == 0 && update % 50 == 0) {
          EXPECT_FALSE(metrics.render().empty());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value_of(metrics, "generation_tokens_total{model_name=\"demo\"}"),
            kNumThreads * kNumUpdates);
}

}  // namespace
}  // namespace pbserve::engine
