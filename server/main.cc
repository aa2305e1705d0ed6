// pbserve: reads the config, starts the engine and both fronts, waits for a signal, drains.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/host_memory.h"
#include "server/app.h"
#include "server/config/command_line.h"
#include "server/config/config.h"
#include "server/config/descriptor_limit.h"
#include "server/config/memory_limit.h"
#include "server/config/model_folder.h"
#include "server/grpc/server.h"
#include "server/http/admin_server.h"
#include "server/http/server.h"
#include "server/kv_events/endpoint.h"
#include "server/kv_events/publisher.h"
#include "server/log.h"
#include "server/process_signals.h"
#include "server/reload.h"
#include "server/start_lines.h"
#include "server/tls_identity.h"
#include "server/tracing/span_exporter.h"
#include "server/version.h"

namespace pbserve::server {
namespace {

// After the engine has drained, its last words travel to the clients of both fronts within this
// time.
constexpr std::chrono::duration<double> kFlushTimeout{5};

constexpr std::chrono::milliseconds kLastLine{50};  // for one line where others still log

// How often a wait for something else looks for signals.
constexpr auto kSignalPause = std::chrono::milliseconds(50);

// On a thread of its own: a folder on a stalled disk must not keep the process from ending.
absl::StatusOr<std::unique_ptr<engine::Engine>> load_engine(const engine::EngineConfig& config,
                                                            const ProcessSignals& signals) {
  auto loaded = std::async(std::launch::async, [&] { return engine::Engine::create(config); });
  while (loaded.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    const auto taken = signals.wait_for(kSignalPause);
    if (!taken || taken->kind == ProcessSignals::Kind::kReload) continue;
    spdlog::warn("{}: stopped while the model was loaded", strsignal(taken->number));
    std::this_thread::sleep_for(kLastLine);
    ProcessSignals::end_process(taken->number);
  }
  return loaded.get();
}

void wait_for_stop(const ProcessSignals& signals, const CommandLine& line, App* app) {
  while (true) {
    const auto taken = signals.wait_for(std::chrono::hours(1));
    if (!taken) continue;
    if (taken->kind == ProcessSignals::Kind::kStop) {
      spdlog::info("{}: draining", strsignal(taken->number));
      return;
    }
    reload(line, app);
  }
}

// The fronts end here: their connections hold requests of the engine, which must still be there.
void end_fronts(App* app, HttpServer* http, GrpcServer* grpc) {
  const double timeout_s = app->config.server.shutdown_timeout_s;
  const auto limit = std::chrono::milliseconds(static_cast<int64_t>(timeout_s * 1000));
  app->contexts.stop();                                           // nobody waits for its prefills
  app->workers.refuse(std::chrono::steady_clock::now() + limit);  // the engine would take no more
  if (!app->engine->drain(limit.count())) {
    spdlog::warn("server.shutdown_timeout_s = {} is over: what was left is cancelled", timeout_s);
  }
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  http->stop(kFlushTimeout.count());  // calls of gRPC end meanwhile too
  const std::chrono::duration<double> rest = kFlushTimeout - (Clock::now() - begin);
  if (grpc != nullptr) grpc->stop(std::max(rest.count(), 0.0));
  app->workers.join();
}

// Ready goes false first, so that balancers look elsewhere while what comes is still taken; then
// what runs may finish. A second signal ends the process at once.
void shut_down(App* app, std::unique_ptr<HttpServer> http, std::unique_ptr<GrpcServer> grpc,
               const ProcessSignals& signals) {
  app->readiness.set_draining();
  const auto delay = std::chrono::duration<double>(app->config.server.drain_delay_s);
  auto ended = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(delay);
    end_fronts(app, http.get(), grpc.get());
  });
  while (ended.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    const auto taken = signals.wait_for(kSignalPause);
    if (taken && taken->kind == ProcessSignals::Kind::kStop) {
      spdlog::warn("second signal: stopping at once");
      std::this_thread::sleep_for(kLastLine);
      std::_Exit(1);
    }
  }
  try {
    ended.get();
  } catch (const std::exception& error) {  // a front may still run, and nobody would end it
    spdlog::error("stopping failed: {}", error.what());
    std::this_thread::sleep_for(kLastLine);
    std::_Exit(1);
  }
  spdlog::info("stopped");
}

// Null where nobody wants spans.
absl::StatusOr<std::shared_ptr<SpanExporter>> start_tracing(const ServerConfig& config) {
  if (config.tracing.otlp_endpoint.empty()) return nullptr;
  const std::vector<SpanAttribute> resource{{"service.name", config.tracing.service_name},
                                            {"service.version", std::string(kVersion)}};
  return SpanExporter::start({.endpoint = config.tracing.otlp_endpoint, .resource = resource});
}

// Null where nobody is to be told of the prefix cache.
absl::StatusOr<std::unique_ptr<KvEventPublisher>> bind_kv_events(const KvEventsOptions& options) {
  if (!options.enable_kv_cache_events || options.publisher == "null") return nullptr;
  ASSIGN_OR_RETURN(auto publisher, KvEventPublisher::bind(options));
  const std::string replay = publisher->replay_endpoint();
  spdlog::info("KV events on {}, replay {}{}", publisher->endpoint(),
               replay.empty() ? "off" : "on ", replay);
  if (!is_local_endpoint(options.endpoint) ||
      (!replay.empty() && !is_local_endpoint(options.replay_endpoint))) {
    spdlog::warn("KV events need no key: whoever can connect reads the tokens of every prompt");
  }
  return publisher;
}

absl::Status serve(const CommandLine& line, ServerConfig config, const ProcessSignals& signals) {
  RETURN_IF_ERROR(check_model_folder(config.engine.model.path));
  ASSIGN_OR_RETURN(const std::shared_ptr<const TlsIdentity> tls, load_tls_identity(config.server));
  RETURN_IF_ERROR(fit_connections(raise_descriptor_limit(), &config));
  RETURN_IF_ERROR(check_buffers_fit(engine::host_memory_limit(), config));
  ASSIGN_OR_RETURN(std::unique_ptr<HttpServer> http, HttpServer::bind(config));
  std::unique_ptr<GrpcServer> grpc;
  if (config.grpc.enabled) {
    ASSIGN_OR_RETURN(grpc, GrpcServer::bind(config));
  }
  std::unique_ptr<AdminServer> admin;
  if (config.server.admin_port >= 0) {
    ASSIGN_OR_RETURN(admin, AdminServer::start(config));
    spdlog::info("admin on {}:{}", config.server.host, admin->port());
  }
  ASSIGN_OR_RETURN(std::shared_ptr<SpanExporter> span_exporter, start_tracing(config));
  ASSIGN_OR_RETURN(const std::unique_ptr<KvEventPublisher> kv_events,
                   bind_kv_events(config.kv_events));
  ASSIGN_OR_RETURN(const std::unique_ptr<engine::Engine> engine,
                   load_engine(config.engine, signals));
  if (kv_events) kv_events->start(engine.get(), http->port());
  App app(engine.get(), config, tls, std::move(span_exporter));
  app.kv_events = kv_events.get();
  if (const absl::Status status = grpc ? grpc->serve(&app) : absl::OkStatus(); !status.ok()) {
    grpc->stop(0);  // while there is an app
    return status;
  }
  log_limits(app);
  if (const absl::Status status = http->serve(&app); !status.ok()) {
    if (grpc) grpc->stop(0);  // while there is an engine
    return status;
  }
  spdlog::info("HTTP on {}:{}{}", config.server.host, http->port(),
               config.server.ssl_certfile.empty() ? "" : " (https)");
  if (grpc) spdlog::info("gRPC on {}:{}", config.server.host, grpc->port());
  log_example(app, http->port());
  if (admin) admin->set_app(&app);
  wait_for_stop(signals, line, &app);
  shut_down(&app, std::move(http), std::move(grpc), signals);
  admin.reset();  // before the app that it speaks of
  return absl::OkStatus();
}

int main(int argc, const char* const* argv) {
  const CommandLineResult line = parse_command_line(argc, argv);
  if (!line.command_line) return line.exit_code;
  const ProcessSignals signals;  // before any thread
  const absl::StatusOr<ServerConfig> config =
      load_config(line.command_line->config_file, line.command_line->overrides);
  start_log(config.ok() ? config->server.log_level : "info",
            config.ok() ? config->server.log_format : "text");
  const absl::Status status =
      config.ok() ? serve(*line.command_line, *config, signals) : config.status();
  if (!status.ok()) spdlog::error("{}", std::string(status.message()));
  const int exit_code = status.ok() ? 0 : 1;
  if (!flush_log()) std::_Exit(exit_code);  // destructors would wait for the log too
  return exit_code;
}

}  // namespace
}  // namespace pbserve::server

int main(int argc, char** argv) { return pbserve::server::main(argc, argv); }
