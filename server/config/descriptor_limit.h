// Connections against the limit on open files: every connection is a descriptor, and a server that
// runs out of them serves nobody.
#pragma once

#include <cstdint>

#include "kernels/core/status.h"
#include "server/config/config.h"

namespace pbserve::server {

// Raises the soft limit to the hard one; what is in force then.
int64_t raise_descriptor_limit();

// Lowers http.max_connections and grpc.max_connections, with a warning that names both values, to
// what `limit` leaves besides the server's own files. An error where that is next to nothing.
absl::Status fit_connections(int64_t limit, ServerConfig* config);

}  // namespace pbserve::server
