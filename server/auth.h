// API keys: `Authorization: Bearer <key>`, the same for HTTP headers and gRPC metadata.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"

namespace pbserve::server {

class Auth {
 public:
  // No keys: everybody may call.
  explicit Auth(std::vector<std::string> keys);

  // From here on these count. Thread-safe, beside check().
  void replace(std::vector<std::string> keys);

  // `authorization` is the header's value, or empty. Takes the same time for every wrong key of
  // one length, and compares with all keys.
  absl::Status check(absl::string_view authorization) const;

 private:
  using Keys = const std::vector<std::string>;
  std::atomic<std::shared_ptr<Keys>> keys_;
};

}  // namespace pbserve::server
