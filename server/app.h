// What every connection and call shares: the engine, the limits, the keys, the workers. Made once
// in main and outlived by nothing that uses it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "server/auth.h"
#include "server/byte_budget.h"
#include "server/config/config.h"
#include "server/contexts/context_store.h"
#include "server/grpc/connections.h"
#include "server/http/connections.h"
#include "server/readiness.h"
#include "server/request_reports.h"
#include "server/tls_identity.h"
#include "server/worker_pool.h"

namespace pbserve::server {

class KvEventPublisher;

struct App {
  App(engine::Engine* the_engine, const ServerConfig& the_config,
      std::shared_ptr<const TlsIdentity> the_tls, std::shared_ptr<SpanExporter> exporter);

  engine::Engine* const engine;
  const ServerConfig config;  // in force
  Auth auth;
  // Of new connections; null: no TLS. SIGHUP replaces it.
  std::atomic<std::shared_ptr<const TlsIdentity>> tls;
  const std::string fingerprint;
  const int64_t started_s;  // Unix time
  const std::shared_ptr<ServerMetrics> metrics;
  const std::shared_ptr<SpanExporter> span_exporter;  // or null
  const std::shared_ptr<RequestReports> reports;
  const KvEventPublisher* kv_events = nullptr;  // or null; set before anybody is served
  ContextStore contexts;
  ByteBudget buffers;  // what the wire holds; above all that holds leases of it
  HttpConnections http_connections;
  std::shared_ptr<GrpcConnections> grpc_connections;  // once gRPC is served; null where it is not
  Readiness readiness;
  WorkerPool workers;
};

}  // namespace pbserve::server
