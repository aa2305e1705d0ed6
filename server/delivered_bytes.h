// How much of what was written to a TCP socket has reached the peer's system. Apart, because the
// system's header for it does not go with the one that Asio includes.
#pragma once

#include <cstdint>

namespace pbserve::server {

// Bytes that the peer has acknowledged since the connection began; 0 where the system does not
// say. A peer that does not read stops acknowledging once its receive buffer is full.
int64_t delivered_bytes(int socket);

}  // namespace pbserve::server
