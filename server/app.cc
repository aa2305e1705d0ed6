#include "server/app.h"

#include <chrono>

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

}  // namespace

App::App(engine::Engine* the_engine, const ServerConfig& the_config)
    : engine(the_engine),
      config(in_force(the_config, *the_engine)),
      auth(the_config.server.keys, {.max_requests = the_config.server.max_requests_per_key,
                                    .max_tokens = the_config.server.max_tokens_per_key}),
      fingerprint(system_fingerprint(kVersion, the_engine->info().sparse_attention)),
      started_s(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())),
      request_log(std::make_shared<RequestLog>(log_options(the_config.server))),
      workers(the_config.server.worker_threads) {}

}  // namespace pbserve::server
