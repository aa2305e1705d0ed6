#include "server/grpc/connections.h"

#include <linux/tcp.h>  // tcpi_bytes_received; the C library's header does not have it
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/api_error.h"

namespace pbserve::server {
namespace {

// 10 Gbit/s bring 12 MB between two looks.
constexpr auto kPause = std::chrono::milliseconds(10);

// While a message that needs no key is awaited: it is a few bytes, but others may share its
// connection.
constexpr int64_t kOpenBytes = 4 << 20;

std::optional<uint64_t> inode_of(int descriptor) {
  struct stat facts {};
  if (fstat(descriptor, &facts) != 0 || !S_ISSOCK(facts.st_mode)) return std::nullopt;
  return facts.st_ino;
}

// Since the connection began; nothing where the system does not count.
std::optional<int64_t> received_bytes(int descriptor) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  constexpr size_t kEnd = offsetof(tcp_info, tcpi_bytes_received) + sizeof(__u64);
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < kEnd) {
    return std::nullopt;
  }
  return static_cast<int64_t>(info.tcpi_bytes_received);
}

// "ipv4:1.2.3.4:5" and "ipv6:%5B::1%5D:5" -> "1.2.3.4:5" and "[::1]:5".
std::string key_of(absl::string_view peer) {
  peer.remove_prefix(std::min(peer.size(), peer.find(':') + 1));
  return absl::StrReplaceAll(peer, {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
}

}  // namespace

GrpcConnections::GrpcConnections(ByteBudget* messages)
    : messages_(messages), thread_([this] { run(); }) {}

GrpcConnections::~GrpcConnections() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void GrpcConnections::add(std::string peer, int descriptor) {
  const auto inode = inode_of(descriptor);
  if (!inode) return;
  const std::lock_guard lock(mutex_);
  // One of the same name is closed: no two open ones have the same addresses.
  Connection& connection = connections_[std::move(peer)];
  num_readings_ -= std::ssize(connection.readings);
  connection = Connection(descriptor, *inode);
}

bool GrpcConnections::is_full(size_t limit) {
  const std::lock_guard lock(mutex_);
  if (connections_.size() < limit) return false;
  // gRPC does not tell when it closes one. Its descriptor does: the number may be in use again, but
  // then for something with another inode.
  std::erase_if(connections_, [this](const auto& item) {
    const Connection& connection = item.second;
    if (inode_of(connection.descriptor) == connection.inode) return false;
    num_readings_ -= std::ssize(connection.readings);
    return true;
  });
  return connections_.size() >= limit;
}

int64_t GrpcConnections::begin(absl::string_view peer, bool needs_key, Refuse refuse) {
  const std::lock_guard lock(mutex_);
  const int64_t id = next_id_++;
  const auto found = connections_.find(key_of(peer));
  if (found == connections_.end()) return id;
  Connection& connection = found->second;
  connection.received = received_bytes(connection.descriptor).value_or(connection.received);
  connection.readings.emplace(id, Reading{.needs_key = needs_key,
                                          .received_before = connection.received,
                                          .refuse = std::move(refuse)});
  if (++num_readings_ == 1) wake_.notify_one();
  return id;
}

void GrpcConnections::end(absl::string_view peer, int64_t id, int64_t message_bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(key_of(peer));
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  const auto reading = connection.readings.find(id);
  if (reading == connection.readings.end()) return;
  for (auto older = connection.readings.begin(); older != reading; ++older) {
    older->second.delivered += message_bytes;
  }
  connection.readings.erase(reading);
  --num_readings_;
  // What is held for messages to come is charged at the next look.
  connection.lease = {};
}

void GrpcConnections::look(Connection* connection, Refusals* refusals) {
  if (connection->readings.empty()) return;
  if (inode_of(connection->descriptor) != connection->inode) return;  // closed: all of it ends
  connection->received = received_bytes(connection->descriptor).value_or(connection->received);
  connection->lease = {};
  Reading* oldest = nullptr;
  for (auto& [id, reading] : connection->readings) {
    if (!reading.refuse) continue;
    if (reading.needs_key) {
      if (oldest == nullptr) oldest = &reading;
    } else if (connection->received - reading.received_before > kOpenBytes) {
      refusals->emplace_back(std::exchange(reading.refuse, nullptr),
                             absl::ResourceExhaustedError("the message is too large"));
    }
  }
  if (oldest == nullptr) return;
  // All that has come since and is not part of a complete message.
  const int64_t held = connection->received - oldest->received_before - oldest->delivered;
  ByteBudget::Lease lease(messages_);
  if (lease.grow_to(std::max<int64_t>(held, 0))) {
    connection->lease = std::move(lease);
    return;
  }
  refusals->emplace_back(std::exchange(oldest->refuse, nullptr),
                         buffers_full("what is being received", messages_->limit_bytes()));
}

void GrpcConnections::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return num_readings_ > 0 || is_over_; });
    if (wake_.wait_for(lock, kPause, [this] { return is_over_; })) return;
    Refusals refusals;
    for (auto& [peer, connection] : connections_) look(&connection, &refusals);
    lock.unlock();
    for (const auto& [refuse, status] : refusals) refuse(status);
    lock.lock();
  }
}

}  // namespace pbserve::server
