#include "server/reload.h"

#include <spdlog/spdlog.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/config/config.h"
#include "server/tls_identity.h"

namespace pbserve::server {
namespace {

// What new connections get. gRPC is told at the start whether there is TLS, and whether clients
// need a certificate: that stays.
absl::StatusOr<std::shared_ptr<const TlsIdentity>> reload_tls(const ServerOptions& now,
                                                              const ServerOptions& before) {
  if (now.ssl_certfile.empty() != before.ssl_certfile.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("server.ssl_certfile = ", now.ssl_certfile,
                                                      ": TLS begins and ends with a restart"));
  }
  if (now.ssl_ca_certs.empty() != before.ssl_ca_certs.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("server.ssl_ca_certs = ", now.ssl_ca_certs,
                     ": asking clients for certificates begins and ends with a restart"));
  }
  return load_tls_identity(now);
}

}  // namespace

void reload(const CommandLine& line, App* app) {
  absl::StatusOr<ServerConfig> config = read_config(line.config_file, line.overrides);
  if (config.ok() && config->server.keys.empty() && app->auth.has_keys()) {
    config = absl::FailedPreconditionError("no API key is left, and all would be let in");
  }
  const auto tls = config.ok() ? reload_tls(config->server, app->config.server) : config.status();
  if (!tls.ok()) {
    spdlog::error("SIGHUP: the API keys stay as they are, and TLS too: {}",
                  std::string(tls.status().message()));
    return;
  }
  app->tls = *tls;
  app->auth.replace(config->server.keys);
  spdlog::info("SIGHUP: {} API keys{}", config->server.keys.size(),
               *tls ? ", TLS files read anew" : "");
}

}  // namespace pbserve::server
