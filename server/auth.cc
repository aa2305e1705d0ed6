#include "server/auth.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

constexpr absl::string_view kScheme = "bearer ";

// Of at most kApiKeyBytesMax bytes.
std::string padded(absl::string_view key) {
  std::string bytes(key);
  bytes.resize(kApiKeyBytesMax);
  return bytes;
}

// The one key of both headers. Another scheme than Bearer is a key that differs from all.
std::optional<absl::string_view> given_key(const Credentials& given) {
  if (given.authorization.empty()) {
    return given.api_key.empty() ? std::nullopt : std::optional(given.api_key);
  }
  if (!absl::StartsWithIgnoreCase(given.authorization, kScheme)) return std::nullopt;
  const absl::string_view bearer = given.authorization.substr(kScheme.size());
  if (!given.api_key.empty() && given.api_key != bearer) return std::nullopt;
  return bearer;
}

}  // namespace

Auth::Auth(const std::vector<ApiKey>& keys, const KeyLimits& limits) : limits_(limits) {
  replace(keys);
}

void Auth::replace(const std::vector<ApiKey>& keys) {
  const std::shared_ptr<Entries> before = entries_;
  std::vector<Entry> entries;
  for (const ApiKey& key : keys) {
    const auto same = std::find_if(before->begin(), before->end(),
                                   [&key](const Entry& entry) { return entry.key.key == key.key; });
    entries.push_back({key, padded(key.key),
                       same == before->end() ? std::make_shared<KeyUse>(limits_) : same->use});
  }
  entries_ = std::make_shared<Entries>(std::move(entries));
}

bool Auth::has_keys() const { return !entries_.load()->empty(); }

absl::Status Auth::check(const Credentials& given, Caller* caller) const {
  const std::shared_ptr<Entries> entries = entries_;
  if (entries->empty()) return absl::OkStatus();
  const std::optional<absl::string_view> key = given_key(given);
  if (!key || key->size() > kApiKeyBytesMax) return invalid_api_key();
  const std::string bytes = padded(*key);
  const Entry* found = nullptr;
  for (const Entry& entry : *entries) {
    // No early way out, so that timing does not tell how much of a key is right.
    const int difference = CRYPTO_memcmp(bytes.data(), entry.padded.data(), kApiKeyBytesMax);
    if (difference == 0 && key->size() == entry.key.key.size()) found = &entry;
  }
  if (found == nullptr) return invalid_api_key();
  caller->key_name = found->key.name;
  caller->key_use = found->use;
  return absl::OkStatus();
}

}  // namespace pbserve::server
