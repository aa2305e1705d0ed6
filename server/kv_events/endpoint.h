// ZeroMQ endpoints as users of vLLM write them.
#pragma once

#include <string>

#include "kernels/core/status.h"

namespace pbserve::server {

// kInvalidArgument names `key`, unless the endpoint is tcp://HOST:PORT, the port 1 to 65535 or *
// for any free one, or ipc://PATH.
absl::Status check_endpoint(const std::string& key, const std::string& endpoint);

// Whether the socket listens there; it connects to all others, as vLLM does. Those with a * or ::,
// ipc, and the addresses 0.0.0.0 and 127.x.
bool is_listening_endpoint(const std::string& endpoint);

// Whether only this machine can reach a socket that listens there.
bool is_local_endpoint(const std::string& endpoint);

}  // namespace pbserve::server
