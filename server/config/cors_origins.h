// server.cors_origins, checked at start: an origin that no browser writes so would never match.
#pragma once

#include <string>
#include <vector>

#include "kernels/core/status.h"

namespace pbserve::server {

// kInvalidArgument names what is wrong with which one. `allows_credentials` is
// server.cors_credentials.
absl::Status check_cors_origins(const std::vector<std::string>& origins, bool allows_credentials);

}  // namespace pbserve::server
