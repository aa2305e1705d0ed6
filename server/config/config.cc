#include "server/config/config.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/config/config_table.h"
#include "server/config/cors_origins.h"
#include "server/config/host_address.h"
#include "server/config/text_file.h"
#include "server/kv_events/endpoint.h"

namespace pbserve::server {
namespace {

constexpr double kMaxSeconds = 86400;
constexpr double kMaxBytes = 1LL << 40;
constexpr double kMaxCount = 1LL << 40;

// Ranges of the engine's keys are the engine's: validate() knows them.
void bind_pbs(engine::PbsOptions* pbs, ConfigTable* table) {
  using engine::PbsPreset;
  using engine::PrefixReuse;
  using engine::SparseMode;
  using kernels::PbsOrder;
  using kernels::PbsScorer;
  using kernels::PbsSelector;
  kernels::PbsParams& params = pbs->params;
  table->add_enum("pbs.preset", &pbs->preset,
                  {{"default", PbsPreset::kDefault}, {"paper", PbsPreset::kPaper}});
  table->add_enum(
      "pbs.mode", &pbs->mode,
      {{"auto", SparseMode::kAuto}, {"dense", SparseMode::kDense}, {"pbs", SparseMode::kPbs}});
  table->add_size("pbs.span", &pbs->span);
  table->add("pbs.segment", &params.segment);
  table->add_enum("pbs.order", &params.order,
                  {{"span", PbsOrder::kSpan}, {"natural", PbsOrder::kNatural}});
  table->add_enum("pbs.scorer", &params.scorer,
                  {{"mass", PbsScorer::kMass},
                   {"query", PbsScorer::kQuery},
                   {"mean", PbsScorer::kMean},
                   {"antidiagonal", PbsScorer::kAntidiagonal}});
  table->add("pbs.stride", &params.stride);
  table->add_enum("pbs.selector", &pbs->selector,
                  {{"auto", std::nullopt},
                   {"error_bound", PbsSelector::kErrorBound},
                   {"top_p", PbsSelector::kTopP},
                   {"max_ratio", PbsSelector::kMaxRatio}});
  table->add("pbs.threshold", &pbs->threshold);
  table->add("pbs.threshold_min", &pbs->threshold_min);
  table->add("pbs.sink", &params.sink);
  table->add("pbs.sink_free", &params.sink_free);
  table->add("pbs.local", &params.local);
  table->add("pbs.dense_tail", &params.dense_tail);
  table->add_auto_size("pbs.min_tokens", &pbs->min_tokens);
  table->add("pbs.dense_layers", &pbs->dense_layers);
  table->add_enum("pbs.prefix_reuse", &pbs->prefix_reuse,
                  {{"exact", PrefixReuse::kExact}, {"any", PrefixReuse::kAny}});
  table->add("pbs.audit", &pbs->audit);
  table->add("pbs.force_density", &pbs->force_density, {0, 1});
}

void bind_engine(engine::EngineConfig* config, ConfigTable* table) {
  using engine::Overlap;
  engine::ModelOptions& model = config->model;
  table->add("model.path", &model.path);
  table->add("model.served_name", &model.served_name);
  table->add("model.load_format", &model.load_format);
  table->add("model.dtype", &model.dtype);
  table->add_json("model.hf_overrides", &model.hf_overrides);
  table->add("model.special_tokens_in_content", &model.special_tokens_in_content);
  table->add_auto_size("model.max_model_len", &model.max_model_len);

  engine::DeviceOptions& device = config->device;
  table->add("device.kind", &device.kind);
  table->add("device.cpu_threads", &device.cpu_threads);
  table->add("device.deterministic", &device.deterministic);
  table->add("device.enforce_eager", &device.enforce_eager);
  table->add("device.gpu_memory_utilization", &device.gpu_memory_utilization);
  table->add_auto_size("device.kv_cache_bytes", &device.kv_cache_bytes);
  table->add_size("device.kv_offload_bytes", &device.kv_offload_bytes);

  engine::SchedulerOptions& scheduler = config->scheduler;
  table->add("scheduler.max_num_seqs", &scheduler.max_num_seqs);
  table->add_size("scheduler.max_num_batched_tokens", &scheduler.max_num_batched_tokens);
  table->add("scheduler.prefill_slice_ms", &scheduler.prefill_slice_ms);
  table->add_size("scheduler.max_num_queued_reqs", &scheduler.max_num_queued_reqs);
  table->add_size("scheduler.max_num_queued_tokens", &scheduler.max_num_queued_tokens);
  table->add("scheduler.max_queued_s", &scheduler.max_queued_s);
  table->add("scheduler.max_cache_hold_s", &scheduler.max_cache_hold_s);
  table->add("scheduler.max_held_cache_share", &scheduler.max_held_cache_share);
  table->add_enum("scheduler.overlap", &scheduler.overlap,
                  {{"auto", Overlap::kAuto}, {"on", Overlap::kOn}, {"off", Overlap::kOff}});
  table->add("scheduler.enable_prefix_caching", &scheduler.enable_prefix_caching);

  bind_pbs(&config->pbs, table);

  table->add("metrics.prefix", &config->metrics.prefix);

  engine::RequestLimits& limits = config->limits;
  table->add("limits.max_stop_strings", &limits.max_stop_strings);
  table->add("limits.max_stop_bytes", &limits.max_stop_bytes);
  table->add("limits.max_stop_token_ids", &limits.max_stop_token_ids);
  table->add("limits.max_cache_salt_bytes", &limits.max_cache_salt_bytes);
}

void bind_kv_events(KvEventsOptions* events, ConfigTable* table) {
  table->add("kv_events.enable_kv_cache_events", &events->enable_kv_cache_events);
  table->add_enum<std::string>("kv_events.publisher", &events->publisher,
                               {{"zmq", "zmq"}, {"null", "null"}});
  table->add("kv_events.endpoint", &events->endpoint);
  table->add("kv_events.replay_endpoint", &events->replay_endpoint);
  table->add("kv_events.topic", &events->topic);
  table->add("kv_events.buffer_steps", &events->buffer_steps, {1, 1 << 20});
  table->add("kv_events.hwm", &events->hwm, {1, 1 << 20});
  table->add("kv_events.max_queue_size", &events->max_queue_size, {1, 1 << 20});
}

void bind_contexts(ContextOptions* contexts, ConfigTable* table) {
  table->add("contexts.max_contexts", &contexts->max_contexts, {0, 1 << 20});
  table->add("contexts.max_contexts_per_key", &contexts->max_contexts_per_key, {0, 1 << 20});
  table->add_size("contexts.max_bytes", &contexts->max_bytes, {0, kMaxBytes});
  table->add_size("contexts.max_bytes_per_key", &contexts->max_bytes_per_key, {0, kMaxBytes});
  table->add("contexts.default_ttl_s", &contexts->default_ttl_s, {1, 30 * kMaxSeconds});
  table->add("contexts.max_ttl_s", &contexts->max_ttl_s, {1, 30 * kMaxSeconds});
}

void bind_server(ServerConfig* config, ConfigTable* table) {
  ServerOptions& server = config->server;
  table->add("server.host", &server.host);
  table->add("server.ssl_certfile", &server.ssl_certfile);
  table->add("server.ssl_keyfile", &server.ssl_keyfile);
  table->add("server.ssl_ca_certs", &server.ssl_ca_certs);
  table->add("server.api_keys", &server.api_keys);
  table->add("server.api_key_file", &server.api_key_file);
  table->add_size("server.max_requests_per_key", &server.max_requests_per_key, {0, kMaxCount});
  table->add_size("server.max_tokens_per_key", &server.max_tokens_per_key, {0, kMaxCount});
  table->add("server.cors_origins", &server.cors_origins);
  table->add("server.cors_credentials", &server.cors_credentials);
  table->add("server.drain_delay_s", &server.drain_delay_s, {0, kMaxSeconds});
  table->add("server.shutdown_timeout_s", &server.shutdown_timeout_s, {0, kMaxSeconds});
  table->add("server.watchdog_s", &server.watchdog_s, {0, kMaxSeconds});
  table->add("server.admin_port", &server.admin_port, {-1, 65535});
  table->add("server.max_connections_per_address", &server.max_connections_per_address,
             {0, 1 << 20});
  table->add("server.worker_threads", &server.worker_threads, {1, 256});
  table->add("server.large_worker_threads", &server.large_worker_threads, {1, 256});
  table->add_size("server.response_buffer_bytes", &server.response_buffer_bytes, {4096, kMaxBytes});
  table->add_size("server.max_buffered_bytes", &server.max_buffered_bytes, {1024, kMaxBytes});
  for (const char* former : {"http.max_buffered_body_bytes", "grpc.max_buffered_message_bytes"}) {
    table->add_former(former, "server.max_buffered_bytes");
  }
  table->add_enum<std::string>(
      "server.log_level", &server.log_level,
      {{"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}});
  table->add_enum<std::string>("server.log_format", &server.log_format,
                               {{"text", "text"}, {"json", "json"}});
  table->add("server.log_requests", &server.log_requests);
  table->add("server.max_log_lines_per_s", &server.max_log_lines_per_s, {1, 1 << 20});

  table->add("tracing.otlp_endpoint", &config->tracing.otlp_endpoint);
  table->add("tracing.service_name", &config->tracing.service_name);

  HttpOptions& http = config->http;
  table->add("http.port", &http.port, {0, 65535});
  table->add("http.io_threads", &http.io_threads, {1, 256});
  table->add("http.max_connections", &http.max_connections, {1, 1 << 20});
  table->add_size("http.max_body_bytes", &http.max_body_bytes, {1024, kMaxBytes});
  table->add_size("http.max_header_bytes", &http.max_header_bytes, {1024, 1 << 24});
  table->add("http.idle_timeout_s", &http.idle_timeout_s, {1, kMaxSeconds});
  table->add("http.header_timeout_s", &http.header_timeout_s, {1, kMaxSeconds});
  table->add("http.body_timeout_s", &http.body_timeout_s, {1, kMaxSeconds});
  table->add("http.write_timeout_s", &http.write_timeout_s, {1, kMaxSeconds});
  table->add("http.sse_keep_alive_s", &http.sse_keep_alive_s, {0, kMaxSeconds});
  table->add("http.strict_params", &http.strict_params);
  table->add("http.json.max_depth", &http.json.max_depth, {4, 256});
  table->add_size("http.json.max_values", &http.json.max_values, {1024, 1 << 30});
  table->add("http.json.max_object_members", &http.json.max_object_members, {64, 1 << 16});

  GrpcOptions& grpc = config->grpc;
  table->add("grpc.enabled", &grpc.enabled);
  table->add("grpc.port", &grpc.port, {0, 65535});
  table->add("grpc.max_message_bytes", &grpc.max_message_bytes, {1024, (1U << 31) - 1});
  table->add("grpc.max_connections", &grpc.max_connections, {1, 1 << 20});
  table->add("grpc.max_calls", &grpc.max_calls, {1, 1 << 20});
  table->add("grpc.receive_timeout_s", &grpc.receive_timeout_s, {1, kMaxSeconds});
  table->add("grpc.idle_timeout_s", &grpc.idle_timeout_s, {1, kMaxSeconds});
  table->add("grpc.reflection", &grpc.reflection);
}

ConfigTable bind(ServerConfig* config) {
  ConfigTable table;
  bind_server(config, &table);
  bind_kv_events(&config->kv_events, &table);
  bind_contexts(&config->contexts, &table);
  bind_engine(&config->engine, &table);
  return table;
}

absl::Status apply_file(const std::string& path, ConfigTable* table) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path));
  try {
    const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/true,
                                  /*ignore_comments=*/true);
    if (!json.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": must hold a JSON object"));
    }
    if (absl::Status status = table->set_all(json); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
    }
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  return absl::OkStatus();
}

absl::Status apply_all(const std::string& file, const std::vector<ConfigOverride>& overrides,
                       ServerConfig* config) {
  ConfigTable table = bind(config);
  if (!file.empty()) RETURN_IF_ERROR(apply_file(file, &table));
  for (const auto& [path, value] : overrides) RETURN_IF_ERROR(table.set_text(path, value));
  return absl::OkStatus();
}

// A body or message that could never be received whole.
absl::Status check_buffered_bytes(const ServerConfig& config) {
  const int64_t buffered = config.server.max_buffered_bytes;
  const auto refused = [buffered](absl::string_view key, int64_t bytes) {
    return absl::InvalidArgumentError(absl::StrCat("server.max_buffered_bytes = ", buffered,
                                                   ": must be at least ", key, " = ", bytes));
  };
  const int64_t body = config.http.max_body_bytes;
  if (body > buffered) return refused("http.max_body_bytes", body);
  const int64_t message = config.grpc.enabled ? config.grpc.max_message_bytes : 0;
  if (message > buffered) return refused("grpc.max_message_bytes", message);
  return absl::OkStatus();
}

// A limit that nobody can reach is a mistake.
absl::Status check_key_limits(const ServerOptions& server) {
  if (!server.keys.empty()) return absl::OkStatus();
  for (const auto& [path, value] : {std::pair("max_requests_per_key", server.max_requests_per_key),
                                    {"max_tokens_per_key", server.max_tokens_per_key}}) {
    if (value == 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("server.", path, " = ", value, ": needs API keys, and there are none"));
  }
  return absl::OkStatus();
}

absl::Status check_contexts(const ContextOptions& contexts) {
  if (contexts.default_ttl_s <= contexts.max_ttl_s) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("contexts.default_ttl_s = ", contexts.default_ttl_s,
                   ": must be at most contexts.max_ttl_s = ", contexts.max_ttl_s));
}

absl::Status check_kv_events(const ServerConfig& config) {
  const KvEventsOptions& events = config.kv_events;
  RETURN_IF_ERROR(check_endpoint("kv_events.endpoint", events.endpoint));
  if (const std::string& replay = events.replay_endpoint; !replay.empty()) {
    RETURN_IF_ERROR(check_endpoint("kv_events.replay_endpoint", replay));
    if (!is_listening_endpoint(replay)) {
      return absl::InvalidArgumentError(
          absl::StrCat("kv_events.replay_endpoint = ", replay,
                       ": must be of this machine, such as tcp://*:5558: it is listened on"));
    }
  }
  constexpr size_t kTopicBytesMax = 512;  // subscribers' frames are bounded
  if (const size_t bytes = events.topic.size(); bytes > kTopicBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_events.topic has ", bytes, " bytes, at most ", kTopicBytesMax));
  }
  if (events.enable_kv_cache_events && !config.engine.scheduler.enable_prefix_caching) {
    return absl::InvalidArgumentError(
        "kv_events.enable_kv_cache_events = true: needs scheduler.enable_prefix_caching");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServerConfig> read_config(const std::string& file,
                                         const std::vector<ConfigOverride>& overrides) {
  ServerConfig config;
  RETURN_IF_ERROR(apply_all(file, overrides, &config));
  if (config.engine.pbs.preset == engine::PbsPreset::kPaper) {  // below every key that is set
    config = {};
    engine::apply_paper_preset(config.engine.pbs);
    RETURN_IF_ERROR(apply_all(file, overrides, &config));
  }
  ASSIGN_OR_RETURN(config.server.keys,
                   read_api_keys(config.server.api_keys, config.server.api_key_file));
  RETURN_IF_ERROR(check_key_limits(config.server));
  RETURN_IF_ERROR(check_cors_origins(config.server.cors_origins, config.server.cors_credentials));
  RETURN_IF_ERROR(check_buffered_bytes(config));
  RETURN_IF_ERROR(check_kv_events(config));
  RETURN_IF_ERROR(check_contexts(config.contexts));
  RETURN_IF_ERROR(engine::validate(config.engine));
  return config;
}

absl::StatusOr<ServerConfig> load_config(const std::string& file,
                                         const std::vector<ConfigOverride>& overrides) {
  ASSIGN_OR_RETURN(ServerConfig config, read_config(file, overrides));
  ASSIGN_OR_RETURN(config.server.host, resolve_host(config.server.host));
  return config;
}

Json effective_config(const ServerConfig& config) {
  ServerConfig shown = config;
  shown.server.api_keys.assign(shown.server.keys.size(), "(hidden)");
  return bind(&shown).dump();
}

}  // namespace pbserve::server
