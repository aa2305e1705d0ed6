// Start-up and the doors of the engine; the loop behind them is engine_loop.cc.
#include "engine/engine.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/engine_loop.h"
#include "engine/intake.h"
#include "engine/memory_plan.h"
#include "kernels/core/gpu_presence.h"
#include "models/device_support.h"

namespace pbserve::engine {

namespace {

void report_device(const DeviceOptions& options, const kernels::DeviceChoice& choice) {
  const bool is_cpu = choice.device.kind == kernels::DeviceKind::kCpu;
  if (options.kind == "auto" && is_cpu && kernels::expects_gpu()) {
    spdlog::warn(
        "device: auto serves on the CPU: {}; --device cuda refuses to start instead, --device cpu "
        "says that it is meant",
        choice.reason);
  } else {
    spdlog::info("device: {}", choice.reason);
  }
}

std::string model_name(const ModelOptions& model) {
  if (!model.served_name.empty()) return model.served_name;
  const auto path = std::filesystem::path(model.path).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

absl::StatusOr<std::unique_ptr<models::Tokenizer>> load_tokenizer(
    const std::string& folder, const models::ModelConfig& model) {
  ASSIGN_OR_RETURN(auto tokenizer, models::Tokenizer::load(folder));
  if (tokenizer->vocab_size() > model.vocab_size) {
    spdlog::warn("the tokenizer has {} tokens, the model {}: prompts with the others are refused",
                 tokenizer->vocab_size(), model.vocab_size);
  }
  if (const int32_t count = tokenizer->num_dropped_bytes(); count > 0) {
    spdlog::warn(
        "the vocabulary has no token for {} of the 256 byte values: they are dropped from "
        "every text",
        count);
  }
  return tokenizer;
}

absl::StatusOr<std::optional<models::ChatTemplate>> load_chat_template(const std::string& folder) {
  absl::StatusOr<models::ChatTemplate> loaded = models::ChatTemplate::load(folder);
  if (absl::IsNotFound(loaded.status())) return std::nullopt;
  RETURN_IF_ERROR(loaded.status());
  return std::optional(*std::move(loaded));
}

absl::StatusOr<models::WeightStore> fill_weights(const ModelOptions& options,
                                                 const models::ModelConfig& config,
                                                 const kernels::Stream& stream) {
  const auto dtype = options.dtype == "float32" ? kernels::DType::kF32 : kernels::DType::kBF16;
  if (options.load_format == "dummy") {
    constexpr uint64_t kSeed = 1;
    return models::WeightStore::dummy(config, dtype, kSeed, stream);
  }
  return models::WeightStore::load(options.path, config, dtype, stream);
}

absl::StatusOr<models::WeightStore> load_weights(const ModelOptions& options,
                                                 const models::ModelConfig& config,
                                                 const kernels::Stream& stream) {
  const Clock::time_point begin = Clock::now();
  ASSIGN_OR_RETURN(auto weights, fill_weights(options, config, stream));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const double gbytes = static_cast<double>(weights.num_bytes()) * 1e-9;
  spdlog::info("weights: {:.2f} GB in {:.2f} s, {:.1f} GB/s", gbytes, seconds, gbytes / seconds);
  return weights;
}

// The config with every automatic value replaced by what was chosen for it.
EngineConfig in_force(const EngineConfig& given, const MemoryPlan& memory,
                      const kernels::Stream& stream, const KvCacheShape& shape) {
  EngineConfig config = given;
  config.model.served_name = model_name(given.model);
  config.model.max_model_len = memory.max_model_len;
  config.device.kind = stream.is_cuda() ? "cuda" : "cpu";
  if (!stream.is_cuda()) config.device.cpu_threads = stream.pool().num_threads();
  config.device.kv_cache_bytes = memory.num_pages * shape.page_bytes();
  config.device.kv_offload_bytes = memory.num_host_pages * shape.page_bytes();
  config.pbs.selector = given.pbs.params.selector;
  config.pbs.threshold = given.pbs.params.threshold;
  return config;
}

KvCacheShape cache_shape(const models::ModelConfig& model, kernels::DType dtype) {
  return {.num_layers = model.num_layers,
          .num_kv_heads = model.num_kv_heads,
          .head_dim = model.head_dim,
          .dtype = dtype};
}

absl::StatusOr<std::unique_ptr<KvCachePool>> create_pool(const kernels::Stream& stream,
                                                         const KvCacheShape& shape,
                                                         const MemoryPlan& memory,
                                                         const SchedulerOptions& scheduler) {
  const Clock::time_point begin = Clock::now();
  ASSIGN_OR_RETURN(auto pool,
                   KvCachePool::create(stream, shape,
                                       {.num_pages = memory.num_pages,
                                        .num_host_pages = memory.num_host_pages,
                                        .max_held_share = scheduler.max_held_cache_share}));
  if (memory.num_host_pages > 0) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    spdlog::info("host tier of the KV cache: {} pages, {:.2f} GB in {:.2f} s",
                 memory.num_host_pages,
                 static_cast<double>(memory.num_host_pages * shape.page_bytes()) * 1e-9, seconds);
  }
  return pool;
}

absl::StatusOr<models::GenerationDefaults> load_defaults(const std::string& folder) {
  ASSIGN_OR_RETURN(models::GenerationDefaults defaults, models::load_generation_defaults(folder));
  for (const std::string& key : defaults.unused_keys) {
    spdlog::warn("generation_config.json: {} is not implemented and has no effect", key);
  }
  return defaults;
}

}  // namespace

// Members in order of construction; destroyed in reverse.
struct Engine::Impl {
  EngineInfo info;
  kernels::Stream stream;
  std::unique_ptr<models::Tokenizer> tokenizer;
  Intake intake;
  models::Transformer transformer;
  std::unique_ptr<KvCachePool> pool;
  std::unique_ptr<ModelRunner> runner;
  Metrics metrics;
  std::unique_ptr<EngineLoop> loop;
  std::atomic<SequenceId> next_id = 1;
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

absl::StatusOr<std::unique_ptr<Engine>> Engine::create(const EngineConfig& given) {
  RETURN_IF_ERROR(validate(given));
  EngineConfig config = given;
  const std::string& folder = config.model.path;
  ASSIGN_OR_RETURN(const models::ModelConfig model,
                   models::load_model_config(folder, config.model.hf_overrides));
  ASSIGN_OR_RETURN(models::GenerationDefaults defaults, load_defaults(folder));
  ASSIGN_OR_RETURN(auto tokenizer, load_tokenizer(folder, model));
  ASSIGN_OR_RETURN(auto chat_template, load_chat_template(folder));
  ASSIGN_OR_RETURN(const kernels::DeviceChoice choice, kernels::choose_device(config.device.kind));
  report_device(config.device, choice);
  RETURN_IF_ERROR(models::check_device_support(model, choice.device.kind));
  config.pbs.params = pbs_params(config.pbs);
  config.pbs.min_tokens = pbs_min_tokens(config.pbs, model, choice.device);
  if (choice.device.kind == kernels::DeviceKind::kCuda && config.model.dtype == "float32") {
    return absl::InvalidArgumentError("model.dtype float32 runs on the CPU only: add --device cpu");
  }
  const auto determinism =
      config.device.deterministic ? kernels::Determinism::kOn : kernels::Determinism::kOff;
  ASSIGN_OR_RETURN(auto stream,
                   kernels::Stream::create(choice.device, config.device.cpu_threads, determinism));
  ASSIGN_OR_RETURN(auto weights, load_weights(config.model, model, stream));
  const auto taken_bytes = static_cast<int64_t>(weights.num_bytes());
  ASSIGN_OR_RETURN(auto transformer,
                   models::Transformer::create(model, std::move(weights), stream));
  ASSIGN_OR_RETURN(const kernels::DeviceInfo device, kernels::device_info(choice.device));
  ASSIGN_OR_RETURN(const kernels::DeviceInfo host, kernels::device_info(kernels::Device{}));
  ASSIGN_OR_RETURN(const MemoryPlan memory,
                   plan_memory(config, model, transformer.dtype(), choice.device,
                               {.total_bytes = device.total_bytes,
                                .free_bytes = device.free_bytes,
                                .taken_bytes = taken_bytes,
                                .host_free_bytes = host.free_bytes}));

  const KvCacheShape shape = cache_shape(model, transformer.dtype());
  const EngineInfo info{
      .model_name = model_name(config.model),
      .architecture = model.architecture,
      .device = device.name,
      .dtype = std::string(kernels::name_of(transformer.dtype())),
      .max_model_len = memory.max_model_len,
      .max_model_len_limit = memory.limited_by,
      .num_pages = memory.num_pages,
      .page_size = kernels::kPageSize,
      .vocab_size = model.vocab_size,
      .sparse_attention = attention_signature(config.pbs, config.pbs.params.threshold),
      .config = in_force(config, memory, stream, shape)};
  const IntakeLimits limits{.vocab_size = model.vocab_size, .max_model_len = memory.max_model_len};
  Intake intake(config, limits, *tokenizer, std::move(chat_template), std::move(defaults));
  auto impl =
      std::unique_ptr<Impl>(new Impl{.info = info,
                                     .stream = std::move(stream),
                                     .tokenizer = std::move(tokenizer),
                                     .intake = std::move(intake),
                                     .transformer = std::move(transformer),
                                     .pool = nullptr,
                                     .runner = nullptr,
                                     .metrics = Metrics(info.model_name, config.metrics.prefix),
                                     .loop = nullptr});
  impl->metrics.set_cache_config(info.page_size, info.num_pages);
  ASSIGN_OR_RETURN(impl->pool, create_pool(impl->stream, shape, memory, config.scheduler));
  ASSIGN_OR_RETURN(impl->runner, ModelRunner::create(config, memory.runner, impl->transformer,
                                                     *impl->pool, impl->stream));
  impl->loop = std::make_unique<EngineLoop>(config, memory.runner, *impl->pool, *impl->runner,
                                            *impl->tokenizer, impl->metrics);
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

void Engine::set_cache_listener(CacheListener* listener) { impl_->pool->set_listener(listener); }

absl::Status Engine::check_queue() const { return impl_->loop->check_queue(); }

absl::StatusOr<Engine::Handle> Engine::submit(Request request, std::unique_ptr<ResponseSink> sink) {
  RETURN_IF_ERROR(check_queue());
  const SequenceId id = impl_->next_id.fetch_add(1);
  ASSIGN_OR_RETURN(SequenceSpec spec, impl_->intake.admit(request, id));
  if (request.on_sized) RETURN_IF_ERROR(request.on_sized(spec.num_tokens_max));
  RETURN_IF_ERROR(
      impl_->loop->submit(std::move(spec), Intake::output_rules(request), std::move(sink)));
  return id;
}

absl::StatusOr<RenderedRequest> Engine::render(const Request& request) const {
  ASSIGN_OR_RETURN(SequenceSpec spec, impl_->intake.admit(request, /*id=*/0));
  const ResolvedSampling& sampling = spec.sampling;
  const int64_t max_tokens = spec.num_tokens_max - std::ssize(spec.prompt);
  return RenderedRequest{.prompt = std::move(spec.prompt),
                         .sampling = {.temperature = sampling.temperature,
                                      .top_p = sampling.top_p,
                                      .top_k = sampling.top_k,
                                      .min_p = sampling.min_p,
                                      .seed = request.sampling.seed},
                         .max_tokens = max_tokens};
}

void Engine::cancel(Handle handle) { impl_->loop->cancel(handle); }

bool Engine::drain(int64_t timeout_ms) {
  return impl_->loop->drain(std::chrono::milliseconds(timeout_ms));
}

absl::StatusOr<std::vector<int32_t>> Engine::tokenize(const Prompt& prompt,
                                                      bool add_special_tokens) const {
  return impl_->intake.tokenize(prompt, add_special_tokens);
}

absl::StatusOr<std::string> Engine::detokenize(std::span<const int32_t> ids) const {
  const std::vector<int32_t> copy(ids.begin(), ids.end());
  RETURN_IF_ERROR(impl_->intake.tokenize(copy, false).status());  // every id exists
  return impl_->tokenizer->decode(ids, /*skip_special_tokens=*/false);
}

std::string Engine::token_text(int32_t id) const { return impl_->tokenizer->token_bytes(id); }

const EngineInfo& Engine::info() const { return impl_->info; }
EngineLoad Engine::load() const { return impl_->loop->load(); }
double Engine::queue_fill() const { return impl_->loop->queue_fill(); }
double Engine::stalled_s() const { return impl_->loop->stalled_s(); }
const Metrics& Engine::metrics() const { return impl_->metrics; }

}  // namespace pbserve::engine
