// API keys: `Authorization: Bearer <key>` or `x-api-key: <key>`, the same for HTTP headers and gRPC
// metadata. How keys and their names are written is config/api_keys.h's.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/core/status.h"
#include "server/caller.h"
#include "server/config/api_keys.h"
#include "server/key_use.h"

namespace pbserve::server {

// The values of the two headers, empty where one is not there.
struct Credentials {
  absl::string_view authorization;
  absl::string_view api_key;
};

class Auth {
 public:
  // No keys: everybody may call.
  explicit Auth(const std::vector<ApiKey>& keys, const KeyLimits& limits = {});

  // From here on these count. What a key that stays has in flight stays with it, also under another
  // name. Thread-safe beside check(), not beside itself.
  void replace(const std::vector<ApiKey>& keys);

  // Whether a key is asked for. Thread-safe.
  bool has_keys() const;

  // Says whose key it is, and what that has in flight. Compares with all keys, each in
  // the same time whatever is given. kUnauthenticated also where the two headers hold
  // different keys: which of them a proxy before us has checked, nobody knows.
  absl::Status check(const Credentials& given, Caller* caller) const;

 private:
  struct Entry {
    ApiKey key;
    std::string padded;  // the key with zeros up to kApiKeyBytesMax
    std::shared_ptr<KeyUse> use;
  };
  using Entries = const std::vector<Entry>;

  const KeyLimits limits_;  // of each key
  std::atomic<std::shared_ptr<Entries>> entries_ = std::make_shared<Entries>();
};

}  // namespace pbserve::server
