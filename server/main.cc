// pbserve: reads the config, starts the engine and both fronts, waits for a signal, drains.
#include <pthread.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "engine/engine.h"
#include "server/app.h"
#include "server/command_line.h"
#include "server/config.h"
#include "server/descriptor_limit.h"
#include "server/grpc_server.h"
#include "server/http_server.h"

namespace pbserve::server {
namespace {

// After the engine has drained, its last words travel to clients within this time.
constexpr double kFlushTimeoutS = 5;

void start_log(const std::string& level) {
  auto log = spdlog::stderr_logger_mt("pbserve");
  log->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%L%$ %v");
  log->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(log));
}

sigset_t shutdown_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

void wait_for_signal() {
  const sigset_t signals = shutdown_signals();
  int number = 0;
  sigwait(&signals, &number);
  spdlog::info("{}: draining", strsignal(number));
}

void print_limits(const App& app) {
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
  if (config.server.api_keys.empty()) {
    spdlog::info("no API key is set: everybody who can connect may call");
  }
}

void print_example(const App& app, uint16_t port) {
  const ServerConfig& config = app.config;
  const std::string key = config.server.api_keys.empty() ? "" : " -H 'Authorization: Bearer <key>'";
  spdlog::info(
      "try: curl http://{}:{}/v1/completions{} -H 'Content-Type: application/json' "
      "-d '{{\"model\": \"{}\", \"prompt\": \"The ls command\", \"max_tokens\": 32}}'",
      config.server.host, port, key, app.engine->info().model_name);
}

// Ready goes false first, so that balancers look elsewhere while what runs may finish. A second
// signal ends the process at once. The fronts end here: their connections hold requests of the
// engine, which must still be there.
void shut_down(App* app, std::unique_ptr<HttpServer> http, std::unique_ptr<GrpcServer> grpc) {
  const double timeout_s = app->config.server.shutdown_timeout_s;
  app->ready = false;
  if (grpc) grpc->set_not_serving();
  auto drained = std::async(std::launch::async, [&] {
    if (!app->engine->drain(static_cast<int64_t>(timeout_s * 1000))) {
      spdlog::warn("server.shutdown_timeout_s = {} is over: what was left is cancelled", timeout_s);
    }
    http->stop(kFlushTimeoutS);
    if (grpc) grpc->stop(kFlushTimeoutS);
    app->workers.join();
  });
  const sigset_t signals = shutdown_signals();
  const timespec look_again{.tv_sec = 0, .tv_nsec = 50'000'000};
  while (drained.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (sigtimedwait(&signals, nullptr, &look_again) > 0) {
      spdlog::warn("second signal: stopping at once");
      std::_Exit(1);
    }
  }
  spdlog::info("stopped");
}

absl::Status serve(ServerConfig config) {
  RETURN_IF_ERROR(fit_connections(raise_descriptor_limit(), &config));
  ASSIGN_OR_RETURN(std::unique_ptr<HttpServer> http, HttpServer::bind(config));
  std::unique_ptr<GrpcServer> grpc;
  if (config.grpc.enabled) {
    ASSIGN_OR_RETURN(grpc, GrpcServer::bind(config));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<engine::Engine> engine,
                   engine::Engine::create(config.engine));
  App app(engine.get(), config);
  if (grpc) RETURN_IF_ERROR(grpc->serve(&app));
  print_limits(app);
  if (const absl::Status status = http->serve(&app); !status.ok()) {
    if (grpc) grpc->stop(0);  // while there is an engine
    return status;
  }
  spdlog::info("HTTP on {}:{}", config.server.host, http->port());
  if (grpc) spdlog::info("gRPC on {}:{}", config.server.host, grpc->port());
  print_example(app, http->port());
  wait_for_signal();
  shut_down(&app, std::move(http), std::move(grpc));
  return absl::OkStatus();
}

int main(int argc, const char* const* argv) {
  const CommandLineResult line = parse_command_line(argc, argv);
  if (!line.command_line) return line.exit_code;
  // Before any thread exists, so that all of them inherit the mask and main alone takes signals.
  const sigset_t signals = shutdown_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a write to a closed socket is an error code
  const absl::StatusOr<ServerConfig> config =
      load_config(line.command_line->config_file, line.command_line->overrides);
  start_log(config.ok() ? config->server.log_level : "info");
  const absl::Status status = config.ok() ? serve(*config) : config.status();
  if (status.ok()) return 0;
  spdlog::error("{}", std::string(status.message()));
  return 1;
}

}  // namespace
}  // namespace pbserve::server

int main(int argc, char** argv) { return pbserve::server::main(argc, argv); }
