#include "server/app.h"

#include <chrono>
#include <utility>

#include "server/openai/format.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

ServerConfig in_force(const ServerConfig& given, const engine::Engine& engine) {
  ServerConfig config = given;
  config.engine = engine.info().config;
  return config;
}

RequestLogOptions log_options(const ServerOptions& server) {
  return {.is_on = server.log_requests,
          .is_json = server.log_format == "json",
          .max_lines_per_s = server.max_log_lines_per_s};
}

ConnectionLimits http_limits(const ServerConfig& config) {
  return {.key = "http.max_connections",
          .in_all = config.http.max_connections,
          .per_address = config.server.max_connections_per_address};
}

}  // namespace

App::App(engine::Engine* the_engine, const ServerConfig& the_config,
         std::shared_ptr<const TlsIdentity> the_tls, std::shared_ptr<SpanExporter> exporter)
    : engine(the_engine),
      config(in_force(the_config, *the_engine)),
      auth(the_config.server.keys, {.max_requests = the_config.server.max_requests_per_key,
                                    .max_tokens = the_config.server.max_tokens_per_key}),
      tls(std::move(the_tls)),
      fingerprint(system_fingerprint(kVersion, the_engine->info().sparse_attention)),
      started_s(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())),
      metrics(std::make_shared<ServerMetrics>(the_engine->info().model_name,
                                              the_config.engine.metrics.prefix)),
      span_exporter(std::move(exporter)),
      reports(
          std::make_shared<RequestReports>(log_options(the_config.server), metrics, span_exporter)),
      contexts(context_engine(the_engine), the_config.contexts),
      buffers(the_config.server.max_buffered_bytes),
      http_connections(http_limits(the_config)),
      readiness(the_engine),
      workers(the_config.server.worker_threads, the_config.server.large_worker_threads) {}

}  // namespace pbserve::server
