// What every connection and call shares: the engine, the limits, the keys, the workers. Made once
// in main and outlived by nothing that uses it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "server/auth.h"
#include "server/config/config.h"
#include "server/tls_identity.h"
#include "server/worker_pool.h"

namespace pbserve::server {

struct App {
  App(engine::Engine* the_engine, const ServerConfig& the_config,
      std::shared_ptr<const TlsIdentity> the_tls);

  engine::Engine* const engine;
  const ServerConfig config;  // in force
  Auth auth;
  // Of new connections; null: no TLS. SIGHUP replaces it.
  std::atomic<std::shared_ptr<const TlsIdentity>> tls;
  const std::string fingerprint;
  const int64_t started_s;  // Unix time
  std::atomic<bool> ready{true};
  WorkerPool workers;
};

}  // namespace pbserve::server
