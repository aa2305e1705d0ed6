// EngineConfig: every limit of the engine, with its default. The server fills it from the config
// file and the flags; validate() refuses a broken limit by name, with the allowed range.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/request.h"
#include "kernels/core/status.h"
#include "kernels/ops/pbs.h"

namespace pbserve::models {
struct ModelConfig;
}

namespace pbserve::engine {

struct ModelOptions {
  std::string path;                        // a Hugging Face folder
  std::string served_name;                 // empty: the folder's name
  std::string load_format = "auto";        // auto | dummy (seeded random weights)
  std::string dtype = "bfloat16";          // bfloat16 | float32 (CPU only)
  std::string hf_overrides;                // JSON merge patch over config.json, or empty
  bool special_tokens_in_content = false;  // "<|im_end|>" in a message's text is that token
  int64_t max_model_len = 0;               // 0 = auto: the model's own, as far as the cache holds
};

struct DeviceOptions {
  std::string kind = "auto";            // auto | cpu | cuda
  bool deterministic = false;           // GPU: a request's tokens do not depend on its company
  bool enforce_eager = false;           // GPU: launch decode operations one by one, no graphs
  int32_t cpu_threads = 0;              // 0 = one per CPU that the container may use
  double gpu_memory_utilization = 0.9;  // this server's share of the GPU's memory
  int64_t kv_cache_bytes = 0;           // 0 = auto: what utilization leaves (GPU); on the CPU
                                        // four full contexts, at most a quarter of free memory
  int64_t kv_offload_bytes = 0;         // host memory for pages that the cache evicts; 0 = none
};

// Whether a step is planned while the one before it runs; a step with a slice of prefill is waited
// for. It hides the host behind a GPU; on the CPU, where nothing runs meanwhile, it delays every
// token by a step.
enum class Overlap : uint8_t { kAuto, kOn, kOff };  // auto: with a GPU

struct SchedulerOptions {
  int32_t max_num_seqs = 64;              // sequences decoding together
  int64_t max_num_batched_tokens = 2048;  // rows of packed short prompts prefilled together
  double prefill_slice_ms = 100;          // prefill work between two decode steps
  int64_t max_num_queued_reqs = 1024;
  int64_t max_num_queued_tokens = 4 << 20;
  double max_queued_s = 0;  // estimated wait until a prompt's prefill begins; 0 = no limit
  Overlap overlap = Overlap::kAuto;
  bool enable_prefix_caching = true;
  double max_cache_hold_s = 3600;     // longest cache_hold_s of a request; 0 = holds are refused
  double max_held_cache_share = 0.5;  // of the KV cache's pages, both tiers: held ones
};

// Which cached pages a prompt may start from.
enum class PrefixReuse : uint8_t {
  kExact,  // those that give the very tokens a cold cache would give
  kAny,    // pages of any mode with the same tokens and salt: faster turns, other roundings
};

// Where the options below start from.
enum class PbsPreset : uint8_t {
  kDefault,
  kPaper,  // the published method: apply_paper_preset
};

struct PbsOptions {
  PbsPreset preset = PbsPreset::kDefault;
  SparseMode mode = SparseMode::kAuto;
  // Unset: what goes with params.scorer. pbs_params puts them over those of params.
  std::optional<kernels::PbsSelector> selector;
  std::optional<float> threshold;
  kernels::PbsParams params;
  int64_t span = 1024;       // C: queries whose last ones order their segments; 0 = the prompt
  int64_t min_tokens = 0;    // mode auto: prompts shorter than this run dense; 0 = auto, by
                             // device and model
  int32_t dense_layers = 0;  // the first layers that always run dense
  int32_t audit = 64;        // coverage is measured on one query block in so many; 0 = off
  PrefixReuse prefix_reuse = PrefixReuse::kExact;
  float threshold_min = 0.05f;  // lowest threshold a request may ask for
  float force_density = 0.0f;   // benchmarks: this share of the causal blocks is drawn in place of
                                // the blocks PBS chose; answers lose their meaning. 0 = off
};

struct RequestLimits {
  int32_t max_stop_strings = 16;
  int32_t max_stop_bytes = 256;  // of one stop string
  int32_t max_stop_token_ids = 16;
  int32_t max_cache_salt_bytes = 1024;
};

struct MetricsOptions {
  std::string prefix = "pbserve";  // of every name: "vllm" for tools that know only its names
};

struct EngineConfig {
  ModelOptions model;
  DeviceOptions device;
  SchedulerOptions scheduler;
  PbsOptions pbs;
  RequestLimits limits;
  MetricsOptions metrics;
};

// The published method (arXiv 2510.21270): one span, mean scores, tau .9, no dense tail. Every
// other option keeps its value.
void apply_paper_preset(PbsOptions& pbs);

// kInvalidArgument names the key ("scheduler.max_num_seqs"), the value and the allowed range.
absl::Status validate(const EngineConfig& config);

// What a request may ask for: 0 where there is nothing to hold.
double longest_cache_hold_s(const SchedulerOptions& scheduler);

// pbs.params with the selector and the threshold that are set or, where they are not, go with the
// scorer.
kernels::PbsParams pbs_params(const PbsOptions& pbs);

// pbs.min_tokens, with auto replaced by where PBS begins to pay with the model on the device.
int64_t pbs_min_tokens(const PbsOptions& pbs, const models::ModelConfig& model,
                       kernels::Device device);

}  // namespace pbserve::engine
