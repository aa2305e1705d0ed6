// The ranges of every limit. A value outside stops the start, with key, value and range.
#include "engine/config.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/core/bits.h"
#include "models/config.h"

namespace pbserve::engine {

namespace {

constexpr int64_t kTokensMax = 1 << 30;  // positions are 32-bit, with room for sums of two
constexpr int64_t kBytesMax = int64_t{1} << 50;

template <class T>
absl::Status require_range(const char* key, T value, T low, T high) {
  if (low <= value && value <= high) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrCat(key, " is ", value, ", must be in [", low, ", ", high, "]"));
}

absl::Status require_one_of(const char* key, const std::string& value,
                            std::initializer_list<const char*> allowed) {
  if (std::ranges::find(allowed, value) != allowed.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(key, " is \"", value, "\", must be one of ", absl::StrJoin(allowed, ", ")));
}

absl::Status require_multiple(const char* key, int64_t value, int64_t unit, const char* unit_name) {
  if (value % unit == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(key, " is ", value, ", must be a multiple of ", unit_name, " (", unit, ")"));
}

absl::Status validate(const ModelOptions& model, const DeviceOptions& device) {
  if (model.path.empty()) {
    return absl::InvalidArgumentError("model.path is empty, must name a Hugging Face folder");
  }
  RETURN_IF_ERROR(require_one_of("model.load_format", model.load_format, {"auto", "dummy"}));
  RETURN_IF_ERROR(require_one_of("model.dtype", model.dtype, {"bfloat16", "float32"}));
  RETURN_IF_ERROR(
      require_range<int64_t>("model.max_model_len", model.max_model_len, 0, kTokensMax));
  RETURN_IF_ERROR(require_one_of("device.kind", device.kind, {"auto", "cpu", "cuda"}));
  if (device.kind == "cuda" && model.dtype == "float32") {
    return absl::InvalidArgumentError(
        "model.dtype is \"float32\", must be bfloat16 with device.kind \"cuda\"");
  }
  RETURN_IF_ERROR(require_range("device.cpu_threads", device.cpu_threads, 0, 1024));
  RETURN_IF_ERROR(
      require_range("device.gpu_memory_utilization", device.gpu_memory_utilization, 0.01, 1.0));
  RETURN_IF_ERROR(
      require_range<int64_t>("device.kv_cache_bytes", device.kv_cache_bytes, 0, kBytesMax));
  return require_range<int64_t>("device.kv_offload_bytes", device.kv_offload_bytes, 0, kBytesMax);
}

absl::Status validate(const SchedulerOptions& scheduler) {
  RETURN_IF_ERROR(require_range("scheduler.max_num_seqs", scheduler.max_num_seqs, 1, 4096));
  RETURN_IF_ERROR(require_range<int64_t>("scheduler.max_num_batched_tokens",
                                         scheduler.max_num_batched_tokens, 1, 1 << 20));
  RETURN_IF_ERROR(
      require_range("scheduler.prefill_slice_ms", scheduler.prefill_slice_ms, 0.01, 60000.0));
  RETURN_IF_ERROR(require_range<int64_t>("scheduler.max_num_queued_reqs",
                                         scheduler.max_num_queued_reqs, 1, 1 << 20));
  constexpr double kSecondsMax = 86400;
  RETURN_IF_ERROR(
      require_range("scheduler.max_queued_s", scheduler.max_queued_s, 0.0, kSecondsMax));
  RETURN_IF_ERROR(
      require_range("scheduler.max_cache_hold_s", scheduler.max_cache_hold_s, 0.0, kSecondsMax));
  RETURN_IF_ERROR(
      require_range("scheduler.max_held_cache_share", scheduler.max_held_cache_share, 0.0, 1.0));
  return require_range<int64_t>("scheduler.max_num_queued_tokens", scheduler.max_num_queued_tokens,
                                1, kBytesMax);
}

absl::Status require_pair(kernels::PbsScorer scorer, kernels::PbsSelector selector) {
  const bool is_mass = scorer == kernels::PbsScorer::kMass;
  const bool is_error_bound = selector == kernels::PbsSelector::kErrorBound;
  if (is_mass == is_error_bound) return absl::OkStatus();
  return absl::InvalidArgumentError(
      is_mass
          ? "pbs.selector must be error_bound with pbs.scorer mass"
          : "pbs.selector is error_bound, must be top_p or max_ratio unless pbs.scorer is mass");
}

absl::Status validate(const PbsOptions& pbs) {
  const kernels::PbsParams params = pbs_params(pbs);
  RETURN_IF_ERROR(require_pair(params.scorer, params.selector));
  RETURN_IF_ERROR(require_range<int32_t>("pbs.segment", params.segment, kernels::kPbsBlock, 256));
  RETURN_IF_ERROR(
      require_multiple("pbs.segment", params.segment, kernels::kPbsBlock, "the page size"));
  if (params.stride != 8 && params.stride != 16) {
    return absl::InvalidArgumentError(
        absl::StrCat("pbs.stride is ", params.stride, ", must be 8 or 16"));
  }
  RETURN_IF_ERROR(require_range("pbs.threshold_min", pbs.threshold_min, 0.0f, 1.0f));
  RETURN_IF_ERROR(require_range("pbs.threshold", params.threshold, pbs.threshold_min, 1.0f));
  RETURN_IF_ERROR(require_range<int64_t>("pbs.span", pbs.span, 0, kTokensMax));
  RETURN_IF_ERROR(require_multiple("pbs.span", pbs.span, params.segment, "pbs.segment"));
  RETURN_IF_ERROR(require_range<int64_t>("pbs.min_tokens", pbs.min_tokens, 0, kTokensMax));
  constexpr int32_t kBlocksMax = 1 << 16;
  RETURN_IF_ERROR(require_range("pbs.sink", params.sink, 0, kBlocksMax));
  RETURN_IF_ERROR(require_range("pbs.local", params.local, 0, kBlocksMax));
  RETURN_IF_ERROR(require_range("pbs.dense_tail", params.dense_tail, 0, kBlocksMax));
  RETURN_IF_ERROR(require_range("pbs.audit", pbs.audit, 0, kBlocksMax));
  RETURN_IF_ERROR(require_range("pbs.force_density", pbs.force_density, 0.0f, 1.0f));
  return require_range("pbs.dense_layers", pbs.dense_layers, 0, 1024);
}

absl::Status validate(const RequestLimits& limits) {
  constexpr int32_t kListMax = 1024;
  constexpr int32_t kTextMax = 65536;  // bytes
  RETURN_IF_ERROR(require_range("limits.max_stop_strings", limits.max_stop_strings, 0, kListMax));
  RETURN_IF_ERROR(require_range("limits.max_stop_bytes", limits.max_stop_bytes, 1, kTextMax));
  RETURN_IF_ERROR(
      require_range("limits.max_stop_token_ids", limits.max_stop_token_ids, 0, kListMax));
  return require_range("limits.max_cache_salt_bytes", limits.max_cache_salt_bytes, 0, kTextMax);
}

absl::Status validate(const MetricsOptions& metrics) {
  const std::string& prefix = metrics.prefix;
  const bool is_name = !prefix.empty() && !absl::ascii_isdigit(prefix.front()) &&
                       std::ranges::all_of(prefix, [](char c) {
                         return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_';
                       });
  if (is_name) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("metrics.prefix is \"", prefix,
                   "\", must be letters, digits and _, and begin with no digit"));
}

}  // namespace

double longest_cache_hold_s(const SchedulerOptions& scheduler) {
  const bool can_hold = scheduler.enable_prefix_caching && scheduler.max_held_cache_share > 0;
  return can_hold ? scheduler.max_cache_hold_s : 0;
}

// CPU: the demo model on 2 threads costs the same at 2,048 tokens and 20 % less at 3,072.
// GPU: what PBS saves of a layer grows with the square of the prompt and with the width of the
// attention, what it costs are a few kernels. On an H200 both are alike at about 3,000 tokens with
// Llama-3.1-8B's 4,096 channels, at 6,200 with Qwen2.5-0.5B's 896 and at 7,200 with SmolLM2-135M's
// 576: where the prompt times the root of the width is 170,000 to 200,000. That of the 8B shape is
// with 22 % of the blocks forced; short prompts take more of them, hence the floor.
int64_t pbs_min_tokens(const PbsOptions& pbs, const models::ModelConfig& model,
                       kernels::Device device) {
  if (pbs.min_tokens > 0) return pbs.min_tokens;
  if (device.kind != kernels::DeviceKind::kCuda) return 3072;
  const auto width = static_cast<double>(model.num_q_heads * model.head_dim);
  constexpr int64_t kFloor = 5120;
  return std::max(kFloor,
                  kernels::align_up<int64_t>(std::llround(200'000 / std::sqrt(width)), 1024));
}

kernels::PbsParams pbs_params(const PbsOptions& pbs) {
  kernels::PbsParams params = pbs.params;
  params.selector = pbs.selector.value_or(kernels::default_selector(params.scorer));
  params.threshold = pbs.threshold.value_or(kernels::default_threshold(params.scorer));
  return params;
}

void apply_paper_preset(PbsOptions& pbs) {
  pbs.preset = PbsPreset::kPaper;
  pbs.span = 0;
  pbs.params.order = kernels::PbsOrder::kSpan;
  pbs.params.scorer = kernels::PbsScorer::kMean;
  pbs.selector = kernels::PbsSelector::kTopP;
  pbs.threshold = 0.9f;
  pbs.params.sink = 1;
  pbs.params.sink_free = false;
  pbs.params.local = 0;
  pbs.params.dense_tail = 0;
}

absl::Status validate(const EngineConfig& config) {
  RETURN_IF_ERROR(validate(config.model, config.device));
  if (config.device.kv_offload_bytes > 0 && !config.scheduler.enable_prefix_caching) {
    return absl::InvalidArgumentError(
        absl::StrCat("device.kv_offload_bytes is ", config.device.kv_offload_bytes,
                     ", must be 0 with scheduler.enable_prefix_caching off: it keeps pages of the "
                     "prefix cache"));
  }
  RETURN_IF_ERROR(validate(config.scheduler));
  RETURN_IF_ERROR(validate(config.pbs));
  RETURN_IF_ERROR(validate(config.metrics));
  return validate(config.limits);
}

}  // namespace pbserve::engine
