#include "engine/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/core/bits.h"
#include "kernels/ops/rope.h"

namespace pbserve::engine {

using kernels::ceil_div;
using kernels::kPageSize;

namespace {

constexpr int64_t kContextsOnCpu = 4;  // full contexts the automatic cache holds
constexpr int64_t kShareOnCpu = 4;     // and at most this part of the free memory

// What a GPU holds for this process beside the weights when the cache is planned: the driver's
// context and the workspace of products. An allowance on the large side, since nothing tells them
// from what others hold.
constexpr int64_t kContextBytes = int64_t{768} << 20;
// Still to come: code that is loaded at first use and the graphs of decode. On an H200 nine graphs
// of 32 layers take 14 MiB, and requests add nothing after start-up.
constexpr int64_t kDriverBytes = int64_t{256} << 20;

int64_t cache_bytes(const EngineConfig& config, int64_t page_bytes, int64_t context_pages,
                    kernels::Device device, int64_t free_bytes) {
  if (config.device.kv_cache_bytes > 0) return config.device.kv_cache_bytes;
  if (device.kind == kernels::DeviceKind::kCuda) return free_bytes;
  return std::min(kContextsOnCpu * context_pages * page_bytes, free_bytes / kShareOnCpu);
}

// What widens the cache.
const char* remedy(const EngineConfig& config, kernels::Device device) {
  const bool has_share =
      device.kind == kernels::DeviceKind::kCuda && config.device.kv_cache_bytes == 0;
  return has_share ? "--gpu-memory-utilization" : "--kv-cache-memory-bytes";
}

RunnerLimits runner_limits(const EngineConfig& config, const models::ModelConfig& model,
                           int64_t max_model_len) {
  // Some thousands of rows keep the matrix products large; a context shorter than that needs no
  // more rows, and a span is never cut.
  constexpr int64_t kMainRows = 8192;
  const int64_t span = config.pbs.span == 0 ? max_model_len : config.pbs.span;
  const int64_t rows = std::min(kernels::align_up(kMainRows, span), max_model_len);
  return {.num_slots = config.scheduler.max_num_seqs,
          .max_model_len = max_model_len,
          .chunks = {.span = config.pbs.span,
                     .segment = config.pbs.params.segment,
                     .dense_tail = config.pbs.params.dense_tail,
                     .reuse = config.pbs.prefix_reuse,
                     .main_rows = rows,
                     .express_rows = std::min(config.scheduler.max_num_batched_tokens, rows)},
          .cost = PrefillCost::prior_of(model)};
}

// Pages of the host tier. On the CPU it shares the memory with all that `taken` counts.
absl::StatusOr<int64_t> host_pages(const EngineConfig& config, int64_t page_bytes,
                                   kernels::Device device, const DeviceMemory& memory,
                                   int64_t taken) {
  const int64_t wanted = config.device.kv_offload_bytes;
  if (wanted == 0) return 0;
  if (wanted < page_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("device.kv_offload_bytes is ", wanted,
                                                   ", must be 0 or hold at least one page of ",
                                                   page_bytes, " bytes"));
  }
  const bool is_cpu = device.kind == kernels::DeviceKind::kCpu;
  const int64_t free_bytes = is_cpu ? memory.free_bytes - taken : memory.host_free_bytes;
  if (wanted <= free_bytes) return wanted / page_bytes;
  return absl::ResourceExhaustedError(absl::StrCat(
      "device.kv_offload_bytes is ", wanted, ", of the host's memory ",
      std::max<int64_t>(free_bytes, 0), " bytes are free",
      is_cpu ? " beside the KV cache and its workspace" : "", ": lower --kv-offload-bytes"));
}

}  // namespace

absl::StatusOr<int64_t> usable_bytes(const EngineConfig& config, kernels::Device device,
                                     const DeviceMemory& memory) {
  if (device.kind == kernels::DeviceKind::kCpu) return memory.free_bytes;
  const int64_t free_bytes = memory.free_bytes - kDriverBytes;
  if (config.device.kv_cache_bytes > 0) return free_bytes;
  const double utilization = config.device.gpu_memory_utilization;
  const auto share = static_cast<int64_t>(utilization * static_cast<double>(memory.total_bytes));
  const int64_t rest = share - memory.taken_bytes - kContextBytes - kDriverBytes;
  if (rest <= free_bytes) return rest;
  const int64_t held = memory.total_bytes - memory.free_bytes - memory.taken_bytes;
  return absl::ResourceExhaustedError(absl::StrCat(
      "device.gpu_memory_utilization ", utilization, " is a share of ", share, " of the GPU's ",
      memory.total_bytes, " bytes; beside weights of ", memory.taken_bytes, " it leaves ", rest,
      " to take, of which ", std::max<int64_t>(free_bytes, 0),
      " are free: other processes and the driver hold ", held,
      "; lower --gpu-memory-utilization or make room"));
}

absl::StatusOr<MemoryPlan> plan_memory(const EngineConfig& config, const models::ModelConfig& model,
                                       kernels::DType dtype, kernels::Device device,
                                       const DeviceMemory& memory) {
  ASSIGN_OR_RETURN(const int64_t usable, usable_bytes(config, device, memory));
  const bool automatic = config.model.max_model_len == 0;
  const int64_t wanted = automatic ? model.max_position : config.model.max_model_len;
  if (wanted > model.max_position) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model.max_model_len is ", wanted, ", the model's positions end at ", model.max_position));
  }
  const KvCacheShape shape{.num_layers = model.num_layers,
                           .num_kv_heads = model.num_kv_heads,
                           .head_dim = model.head_dim,
                           .dtype = dtype};
  const int64_t workspace = static_cast<int64_t>(
      ModelRunner::workspace_bytes(runner_limits(config, model, wanted), model, dtype, device));
  const bool is_given = config.device.kv_cache_bytes > 0;
  if (is_given && config.device.kv_cache_bytes > usable - workspace) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "device.kv_cache_bytes is ", config.device.kv_cache_bytes, ", beside a workspace of ",
        workspace, " bytes at most ", std::max<int64_t>(usable - workspace, 0), " are free"));
  }
  const int64_t context_pages = ceil_div<int64_t>(wanted, kPageSize);
  const int64_t bytes =
      cache_bytes(config, shape.page_bytes(), context_pages, device, usable - workspace);
  const int64_t pages = std::max<int64_t>(bytes, 0) / shape.page_bytes();
  if (pages < 1 || (!automatic && pages < context_pages)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a context of ", wanted, " tokens needs ", context_pages * shape.page_bytes(),
                     " bytes of KV cache and ", workspace, " of workspace; the cache has ",
                     std::max<int64_t>(bytes, 0), " bytes of ", std::max<int64_t>(usable, 0),
                     " usable ones: lower --max-model-len or raise ", remedy(config, device)));
  }
  MemoryPlan plan;
  plan.num_pages = pages;
  ASSIGN_OR_RETURN(plan.num_host_pages, host_pages(config, shape.page_bytes(), device, memory,
                                                   workspace + pages * shape.page_bytes()));
  plan.max_model_len = std::min(wanted, pages * kPageSize);
  plan.limited_by = plan.max_model_len < wanted ? "the KV cache"
                    : automatic                 ? "the model's positions"
                                                : "--max-model-len";
  plan.runner = runner_limits(config, model, plan.max_model_len);
  return plan;
}

}  // namespace pbserve::engine
