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

}  // namespace

App::App(engine::Engine* the_engine, const ServerConfig& the_config,
         std::shared_ptr<const TlsIdentity> the_tls)
    : engine(the_engine),
      config(in_force(the_config, *the_engine)),
      auth(the_config.server.api_keys),
      tls(std::move(the_tls)),
      fingerprint(system_fingerprint(kVersion, the_engine->info().sparse_attention)),
      started_s(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())),
      workers(the_config.server.worker_threads) {}

}  // namespace pbserve::server
