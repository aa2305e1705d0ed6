#include "server/start_lines.h"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <string>

#include "engine/engine.h"
#include "server/config/config.h"
#include "server/config/host_address.h"
#include "server/json/body.h"

namespace pbserve::server {

void log_limits(const App& app) {
  const engine::EngineInfo& info = app.engine->info();
  const ServerConfig& config = app.config;
  spdlog::info("config: {}", dump_json(effective_config(config)));
  spdlog::info("model {} ({}, {}) on {}", info.model_name, info.architecture, info.dtype,
               info.device);
  spdlog::info("context of {} tokens, limited by {}; KV cache of {} pages of {} tokens = {} tokens",
               info.max_model_len, info.max_model_len_limit, info.num_pages, info.page_size,
               info.num_pages * info.page_size);
  spdlog::info("{} requests decode together, {} may wait; bodies up to {} bytes",
               config.engine.scheduler.max_num_seqs, config.engine.scheduler.max_num_queued_reqs,
               config.http.max_body_bytes);
  spdlog::info("sparse attention: {}", info.sparse_attention);
  if (config.engine.pbs.force_density > 0) {
    spdlog::warn("--force-density {}: blocks are drawn and not chosen; answers mean nothing",
                 config.engine.pbs.force_density);
  }
  if (!config.server.ssl_certfile.empty()) {
    spdlog::info("TLS on HTTP and gRPC; clients need {}",
                 config.server.ssl_ca_certs.empty() ? "no certificate" : "a certificate");
  }
  if (config.server.keys.empty()) {
    const bool is_open = !is_loopback(config.server.host);
    spdlog::log(is_open ? spdlog::level::warn : spdlog::level::info,
                "no API key is set: everybody who can connect to {} may call", config.server.host);
  }
}

void log_example(const App& app, uint16_t http_port) {
  const ServerConfig& config = app.config;
  const std::string key = config.server.keys.empty() ? "" : " -H 'Authorization: Bearer <key>'";
  spdlog::info(
      "try: curl {}://{}:{}/v1/completions{} -H 'Content-Type: application/json' "
      "-d '{{\"model\": \"{}\", \"prompt\": \"The ls command\", \"max_tokens\": 32}}'",
      app.tls.load() ? "https" : "http", config.server.host, http_port, key,
      app.engine->info().model_name);
}

}  // namespace pbserve::server
