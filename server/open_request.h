// One request from its head to its end, on either transport. It is shared by all who work on it, a
// front, a worker, the engine's output; when the last of them lets go its one line is written and
// its place is free, whatever has ended it.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "kernels/core/status.h"
#include "server/key_use.h"
#include "server/request_reports.h"

namespace pbserve::server {

class OpenRequest {
 public:
  // Arrives now, under a made-up id.
  OpenRequest(Transport transport, std::shared_ptr<RequestReports> reports,
              std::string client_address);
  ~OpenRequest();
  OpenRequest(const OpenRequest&) = delete;
  OpenRequest& operator=(const OpenRequest&) = delete;

  // The name in headers and in the log. Thread-safe: a worker may find it in a body while the front
  // sees the client leave.
  std::string id() const;
  void set_id(std::string id);

  // Of the front, but for what workers alone know: `submitted`. Its id is written at the end.
  RequestRecord record;
  // Its place among those of its key: free again when the request ends. Whoever ends an answer
  // gives it back before the last bytes leave, so that a client that waits for them finds a place;
  // never while a worker or the engine may still charge it.
  KeySlot slot;

  // The answer is an error.
  void fail(const absl::Status& error);
  // The answer has been written as it should be.
  void succeed(int http_status = 200);

  const RequestReports& reports() const { return *reports_; }

  // From the engine's output thread, once.
  void complete(const engine::Completion& completion);

 private:
  mutable std::mutex mutex_;
  std::string id_;
  const std::shared_ptr<RequestReports> reports_;  // the engine may let go of a request last of all
  std::optional<engine::Completion> completion_;
};

}  // namespace pbserve::server
