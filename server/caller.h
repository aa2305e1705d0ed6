// Who sends a request: made where the head of a request, or the metadata of a call, is checked, and
// carried to the limits and the log.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace pbserve::server {

class KeyUse;

struct Caller {
  std::string address;              // without the port
  std::string key_name;             // of the API key; empty where none was asked for
  std::shared_ptr<KeyUse> key_use;  // what that key has in flight; null without one
};

// The address in gRPC's name of a peer, "ipv4:10.0.0.1:4711" or "ipv6:%5Bfe80::1%5D:4711". Of
// another kind of name all of it.
std::string address_of_peer(absl::string_view peer);

}  // namespace pbserve::server
