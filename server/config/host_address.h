// Where to listen: a name becomes the address that sockets are bound to.
#pragma once

#include <string>

#include "kernels/core/status.h"

namespace pbserve::server {

// An address as it stands; a name as the first IPv4 address that the system knows for it, else the
// first IPv6 one. kInvalidArgument names the host and why it has none.
absl::StatusOr<std::string> resolve_host(const std::string& host);

// Whether only this machine reaches the address.
bool is_loopback(const std::string& address);

}  // namespace pbserve::server
