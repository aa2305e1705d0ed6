// Who sends a request: made where the head of a request, or the metadata of a call, is checked, and
// carried to the limits and the log.
#pragma once

#include <memory>
#include <string>

namespace pbserve::server {

class KeyUse;

struct Caller {
  std::string address;              // without the port
  std::string key_name;             // of the API key; empty where none was asked for
  std::shared_ptr<KeyUse> key_use;  // what that key has in flight; null without one
};

}  // namespace pbserve::server
