// The HTTP front: binds early, so that a port in use is an error before a model is loaded, and
// serves once there is an engine. A few threads run all connections as coroutines.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/core/status.h"
#include "server/app.h"
#include "server/config/config.h"

namespace pbserve::server {

class HttpServer {
 public:
  // Takes the address, without listening.
  static absl::StatusOr<std::unique_ptr<HttpServer>> bind(const ServerConfig& config);
  ~HttpServer();  // stop() first if serve() was called
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;

  // Starts the threads. `app` outlives the server.
  absl::Status serve(App* app);

  // Takes no more connections, lets open exchanges end for up to `timeout_s`, cuts the rest off.
  // Afterwards no thread of the server runs; work in app->workers may still refer to it.
  void stop(double timeout_s);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::server
