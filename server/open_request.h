// One request from its head to its end, on either transport. It is shared by all who work on it, a
// front, a worker, the engine's output; when the last of them lets go its one line is written,
// whatever has ended it.
#pragma once

#include <memory>
#include <string>

#include "kernels/core/status.h"
#include "server/request_log.h"

namespace pbserve::server {

class OpenRequest {
 public:
  // Arrives now, under a made-up id.
  OpenRequest(std::shared_ptr<RequestLog> log, std::string client_address);
  ~OpenRequest();
  OpenRequest(const OpenRequest&) = delete;
  OpenRequest& operator=(const OpenRequest&) = delete;

  // By the front, or who works for it while it waits. All but this of what follows is theirs.
  RequestRecord record;

  // The answer is an error.
  void fail(const absl::Status& error);
  // The answer has been written as it should be.
  void succeed(int http_status = 200);

  // From the engine's output thread, once.
  void complete(const engine::Completion& completion);

 private:
  const std::shared_ptr<RequestLog> log_;  // the engine may let go of a request last of all
  std::optional<engine::Completion> completion_;
};

}  // namespace pbserve::server
