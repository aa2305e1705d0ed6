#include "server/grpc/socket_facts.h"

#include <linux/tcp.h>  // tcpi_bytes_received; the C library's header does not have it
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstddef>

namespace pbserve::server {

std::optional<uint64_t> inode_of(int descriptor) {
  struct stat facts {};
  if (fstat(descriptor, &facts) != 0 || !S_ISSOCK(facts.st_mode)) return std::nullopt;
  return facts.st_ino;
}

std::optional<int64_t> received_bytes(int descriptor) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  constexpr size_t kEnd = offsetof(tcp_info, tcpi_bytes_received) + sizeof(__u64);
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < kEnd) {
    return std::nullopt;
  }
  return static_cast<int64_t>(info.tcpi_bytes_received);
}

}  // namespace pbserve::server
