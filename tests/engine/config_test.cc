// validate(): every limit is refused just outside its range, by name, value and range.
#include "engine/config.h"

#include <gtest/gtest.h>

#include "models/config.h"

#include <functional>
#include <limits>

namespace pbserve::engine {
namespace {

EngineConfig good_config() {
  EngineConfig config;
  config.model.path = "models/demo";
  return config;
}

struct Case {
  std::string name;
  std::function<void(EngineConfig&)> change;
  std::vector<std::string> message;  // parts of it; empty: the config is good
};

class ConfigTest : public ::testing::TestWithParam<Case> {};

TEST_P(ConfigTest, Validate) {
  EngineConfig config = good_config();
  GetParam().change(config);
  const absl::Status status = validate(config);
  if (GetParam().message.empty()) {
    EXPECT_TRUE(status.ok()) << status;
    return;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& part : GetParam().message) {
    EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
        << part << " is not in: " << status;
  }
}

std::string name_of(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(
    Good, ConfigTest,
    ::testing::Values(
        Case{"defaults", [](EngineConfig&) {}, {}},
        Case{"cpu_float32",
             [](EngineConfig& c) {
               c.device.kind = "cpu";
               c.model.dtype = "float32";
             },
             {}},
        Case{"whole_prompt", [](EngineConfig& c) { c.pbs.span = 0; }, {}},
        Case{"take_all", [](EngineConfig& c) { c.pbs.threshold = 1.0f; }, {}},
        Case{"one_sequence", [](EngineConfig& c) { c.scheduler.max_num_seqs = 1; }, {}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Model, ConfigTest,
    ::testing::Values(Case{"path", [](EngineConfig& c) { c.model.path = ""; }, {"model.path"}},
                      Case{"load_format",
                           [](EngineConfig& c) { c.model.load_format = "gguf"; },
                           {"model.load_format", "\"gguf\"", "auto, dummy"}},
                      Case{"dtype",
                           [](EngineConfig& c) { c.model.dtype = "float16"; },
                           {"model.dtype", "\"float16\"", "bfloat16, float32"}},
                      Case{"max_model_len",
                           [](EngineConfig& c) { c.model.max_model_len = -1; },
                           {"model.max_model_len is -1, must be in [0, 1073741824]"}},
                      Case{"device_kind",
                           [](EngineConfig& c) { c.device.kind = "gpu"; },
                           {"device.kind", "\"gpu\"", "auto, cpu, cuda"}},
                      Case{"cuda_float32",
                           [](EngineConfig& c) {
                             c.device.kind = "cuda";
                             c.model.dtype = "float32";
                           },
                           {"model.dtype", "cuda"}},
                      Case{"cpu_threads",
                           [](EngineConfig& c) { c.device.cpu_threads = 1025; },
                           {"device.cpu_threads is 1025, must be in [0, 1024]"}},
                      Case{"gpu_memory_utilization",
                           [](EngineConfig& c) { c.device.gpu_memory_utilization = 1.5; },
                           {"device.gpu_memory_utilization is 1.5, must be in [0.01, 1]"}},
                      Case{"kv_cache_bytes",
                           [](EngineConfig& c) { c.device.kv_cache_bytes = -1; },
                           {"device.kv_cache_bytes is -1"}},
                      Case{"kv_offload_bytes",
                           [](EngineConfig& c) { c.device.kv_offload_bytes = -1; },
                           {"device.kv_offload_bytes is -1"}},
                      Case{"kv_offload_without_cache",
                           [](EngineConfig& c) {
                             c.device.kv_offload_bytes = 4096;
                             c.scheduler.enable_prefix_caching = false;
                           },
                           {"device.kv_offload_bytes is 4096, must be 0 with "
                            "scheduler.enable_prefix_caching off"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Scheduler, ConfigTest,
    ::testing::Values(Case{"max_num_seqs",
                           [](EngineConfig& c) { c.scheduler.max_num_seqs = 0; },
                           {"scheduler.max_num_seqs is 0, must be in [1, 4096]"}},
                      Case{"max_num_batched_tokens",
                           [](EngineConfig& c) { c.scheduler.max_num_batched_tokens = 0; },
                           {"scheduler.max_num_batched_tokens is 0"}},
                      Case{"prefill_slice_ms",
                           [](EngineConfig& c) {
                             c.scheduler.prefill_slice_ms =
                                 std::numeric_limits<double>::quiet_NaN();
                           },
                           {"scheduler.prefill_slice_ms is nan"}},
                      Case{"max_num_queued_reqs",
                           [](EngineConfig& c) { c.scheduler.max_num_queued_reqs = 0; },
                           {"scheduler.max_num_queued_reqs is 0"}},
                      Case{"max_num_queued_tokens",
                           [](EngineConfig& c) { c.scheduler.max_num_queued_tokens = 0; },
                           {"scheduler.max_num_queued_tokens is 0"}},
                      Case{"max_cache_hold_s",
                           [](EngineConfig& c) { c.scheduler.max_cache_hold_s = -1; },
                           {"scheduler.max_cache_hold_s is -1, must be in [0, 86400]"}},
                      Case{"max_held_cache_share",
                           [](EngineConfig& c) { c.scheduler.max_held_cache_share = 1.5; },
                           {"scheduler.max_held_cache_share is 1.5, must be in [0, 1]"}}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    PbsAndLimits, ConfigTest,
    ::testing::Values(
        Case{"segment_range",
             [](EngineConfig& c) { c.pbs.params.segment = 512; },
             {"pbs.segment is 512, must be in [128, 256]"}},
        Case{"segment_multiple",
             [](EngineConfig& c) { c.pbs.params.segment = 200; },
             {"pbs.segment is 200", "multiple", "128"}},
        Case{"stride",
             [](EngineConfig& c) { c.pbs.params.stride = 4; },
             {"pbs.stride is 4, must be 8 or 16"}},
        Case{"selector_of_mass",
             [](EngineConfig& c) { c.pbs.selector = kernels::PbsSelector::kTopP; },
             {"pbs.selector must be error_bound with pbs.scorer mass"}},
        Case{"selector_of_another",
             [](EngineConfig& c) {
               c.pbs.params.scorer = kernels::PbsScorer::kMean;
               c.pbs.selector = kernels::PbsSelector::kErrorBound;
             },
             {"pbs.selector is error_bound", "unless pbs.scorer is mass"}},
        Case{"threshold_under_minimum",
             [](EngineConfig& c) { c.pbs.threshold = 0.01f; },
             {"pbs.threshold is 0.01, must be in [0.05, 1]"}},
        Case{"threshold_min",
             [](EngineConfig& c) { c.pbs.threshold_min = -0.5f; },
             {"pbs.threshold_min is -0.5"}},
        Case{"sink", [](EngineConfig& c) { c.pbs.params.sink = -1; }, {"pbs.sink is -1"}},
        Case{"local", [](EngineConfig& c) { c.pbs.params.local = -1; }, {"pbs.local is -1"}},
        Case{"dense_tail",
             [](EngineConfig& c) { c.pbs.params.dense_tail = -2; },
             {"pbs.dense_tail is -2"}},
        Case{"audit", [](EngineConfig& c) { c.pbs.audit = -1; }, {"pbs.audit is -1"}},
        Case{"span_multiple",
             [](EngineConfig& c) { c.pbs.span = 8192 + 128; },
             {"pbs.span is 8320", "pbs.segment (256)"}},
        Case{"span_negative", [](EngineConfig& c) { c.pbs.span = -256; }, {"pbs.span is -256"}},
        Case{
            "min_tokens", [](EngineConfig& c) { c.pbs.min_tokens = -1; }, {"pbs.min_tokens is -1"}},
        Case{"dense_layers",
             [](EngineConfig& c) { c.pbs.dense_layers = -1; },
             {"pbs.dense_layers is -1"}},
        Case{"metrics_prefix",
             [](EngineConfig& c) { c.metrics.prefix = "a b"; },
             {"metrics.prefix is \"a b\""}},
        Case{"metrics_prefix_with_a_digit_first",
             [](EngineConfig& c) { c.metrics.prefix = "1a"; },
             {"metrics.prefix is \"1a\""}},
        Case{"metrics_prefix_empty",
             [](EngineConfig& c) { c.metrics.prefix = ""; },
             {"metrics.prefix is \"\""}},
        Case{"max_stop_strings",
             [](EngineConfig& c) { c.limits.max_stop_strings = -1; },
             {"limits.max_stop_strings is -1"}},
        Case{"max_stop_bytes",
             [](EngineConfig& c) { c.limits.max_stop_bytes = 0; },
             {"limits.max_stop_bytes is 0, must be in [1, 65536]"}},
        Case{"max_stop_token_ids",
             [](EngineConfig& c) { c.limits.max_stop_token_ids = 1025; },
             {"limits.max_stop_token_ids is 1025"}},
        Case{"max_cache_salt_bytes",
             [](EngineConfig& c) { c.limits.max_cache_salt_bytes = -1; },
             {"limits.max_cache_salt_bytes is -1"}}),
    name_of);

TEST(PbsParams, WhatIsUnsetGoesWithTheScorer) {
  using kernels::PbsScorer;
  using kernels::PbsSelector;
  struct Expected {
    PbsScorer scorer;
    PbsSelector selector;
    float threshold;
  };
  for (const Expected& expected : {Expected{PbsScorer::kMass, PbsSelector::kErrorBound, 0.933f},
                                   Expected{PbsScorer::kQuery, PbsSelector::kTopP, 0.75f},
                                   Expected{PbsScorer::kMean, PbsSelector::kTopP, 0.9f},
                                   Expected{PbsScorer::kAntidiagonal, PbsSelector::kTopP, 0.9f}}) {
    PbsOptions pbs;
    pbs.params.scorer = expected.scorer;
    EXPECT_EQ(pbs_params(pbs).selector, expected.selector);
    EXPECT_EQ(pbs_params(pbs).threshold, expected.threshold);
  }
  PbsOptions pbs;
  EXPECT_EQ(pbs_params(pbs).scorer, PbsScorer::kMass);
  pbs.params.scorer = PbsScorer::kQuery;
  pbs.selector = PbsSelector::kMaxRatio;
  pbs.threshold = 0.2f;
  EXPECT_EQ(pbs_params(pbs).selector, PbsSelector::kMaxRatio);
  EXPECT_EQ(pbs_params(pbs).threshold, 0.2f);
}

TEST(PbsParams, ThePaperPresetIsThePublishedMethod) {
  PbsOptions pbs;
  apply_paper_preset(pbs);
  EXPECT_EQ(pbs_params(pbs).scorer, kernels::PbsScorer::kMean);
  EXPECT_EQ(pbs_params(pbs).selector, kernels::PbsSelector::kTopP);
  EXPECT_EQ(pbs_params(pbs).threshold, 0.9f);
}

constexpr kernels::Device kCpu{.kind = kernels::DeviceKind::kCpu};
constexpr kernels::Device kGpu{.kind = kernels::DeviceKind::kCuda};

models::ModelConfig attention_of(int64_t num_q_heads, int64_t head_dim) {
  models::ModelConfig model;
  model.num_q_heads = num_q_heads;
  model.head_dim = head_dim;
  return model;
}

// Where it was measured: tests/bench/NOTES.md.
TEST(PbsMinTokens, AutoOnAGpuFollowsTheWidthOfTheAttention) {
  EXPECT_EQ(pbs_min_tokens({}, attention_of(32, 128), kGpu), 5120);  // Llama-3.1-8B
  EXPECT_EQ(pbs_min_tokens({}, attention_of(14, 64), kGpu), 7168);   // Qwen2.5-0.5B
  EXPECT_EQ(pbs_min_tokens({}, attention_of(9, 64), kGpu), 9216);    // SmolLM2-135M
}

TEST(PbsMinTokens, AutoOnTheCpuIsOneNumber) {
  EXPECT_EQ(pbs_min_tokens({}, attention_of(6, 64), kCpu), 3072);
  EXPECT_EQ(pbs_min_tokens({}, attention_of(32, 128), kCpu), 3072);
}

TEST(PbsMinTokens, ANumberStands) {
  PbsOptions pbs;
  pbs.min_tokens = 1;
  EXPECT_EQ(pbs_min_tokens(pbs, attention_of(32, 128), kGpu), 1);
  EXPECT_EQ(pbs_min_tokens(pbs, attention_of(32, 128), kCpu), 1);
}

}  // namespace
}  // namespace pbserve::engine
