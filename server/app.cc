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

}  // namespace

App::App(engine::Engine* the_engine, const ServerConfig& the_config)
    : engine(the_engine),
      config(in_force(the_config, *the_engine)),
      auth(the_config.server.api_keys),
      fingerprint(system_fingerprint(kVersion, the_engine->info().sparse_attention)),
      started_s(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())),
      readiness(the_engine),
      buffers(the_config.server.max_buffered_bytes),
      workers(the_config.server.worker_threads, the_config.server.large_worker_threads) {}

}  // namespace pbserve::server
