// A port of its own for probes and scrapes: /health, /ready and /metrics without a key. It answers
// while a model is loaded, while clients hold every connection of the other ports, and until the
// process ends.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/status.h"
#include "server/app.h"
#include "server/config/config.h"

namespace pbserve::server {

class AdminServer {
 public:
  // Takes server.host and server.admin_port and answers from here on: alive, and not ready.
  static absl::StatusOr<std::unique_ptr<AdminServer>> start(const ServerConfig& config);
  ~AdminServer();
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

  uint16_t port() const;

  // What is told from here on. `app` outlives the server.
  void set_app(App* app);

 private:
  struct Impl;
  explicit AdminServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
