// What the system knows of a socket by its descriptor. In a file of its own: the kernel's header
// for it and the C library's, which Asio includes, shut each other out.
#pragma once

#include <cstdint>
#include <optional>

namespace pbserve::server {

// Tells sockets apart that have had the same number. None: it is not open, or no socket.
std::optional<uint64_t> inode_of(int descriptor);

// Bytes of TCP since the connection began. None where the system does not count.
std::optional<int64_t> received_bytes(int descriptor);

}  // namespace pbserve::server
