// What is held for clients against the memory that there is: a budget that does not fit would be
// found out by the kernel, which ends the process.
#pragma once

#include "engine/host_memory.h"
#include "kernels/core/status.h"
#include "server/config/config.h"

namespace pbserve::server {

// kFailedPrecondition names server.max_buffered_bytes and the limit if the budget and the buffers
// of all connections do not fit. Of the model's own memory it knows nothing.
absl::Status check_buffers_fit(const engine::MemoryLimit& limit, const ServerConfig& config);

}  // namespace pbserve::server
