#include "server/grpc/connections.h"

#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "server/api_error.h"
#include "server/grpc/socket_facts.h"
#include "server/peer_address.h"

namespace pbserve::server {
namespace {

// 10 Gbit/s bring 12 MB between two looks.
constexpr auto kPause = std::chrono::milliseconds(10);

// Between two looks for connections that gRPC has closed, where there is no room: each asks the
// system about every one of them.
constexpr auto kLookInterval = std::chrono::milliseconds(100);

// While a message that needs no key is awaited: it is a few bytes, but others may share its
// connection.
constexpr int64_t kSharedBytes = 4 << 20;

}  // namespace

bool GrpcConnections::Connection::is_open() const {
  // The number may be in use again, but then for something with another inode.
  return inode_of(descriptor) == inode;
}

GrpcConnections::GrpcConnections(ByteBudget* messages, ConnectionLimits limits)
    : messages_(messages), limits_(limits), thread_([this] { run(); }) {}

GrpcConnections::~GrpcConnections() { stop(); }

void GrpcConnections::stop() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void GrpcConnections::add(std::string name, std::string address, int descriptor) {
  const auto inode = inode_of(descriptor);
  if (!inode) return;
  std::string group = address_group(address);
  const std::lock_guard lock(mutex_);
  // One of the same name is closed: no two open ones have the same addresses.
  if (const auto old = connections_.find(name); old != connections_.end()) forget(old);
  int64_t& num_of_group = num_of_group_[group];
  connections_.emplace(std::move(name), Connection(std::move(group), descriptor, *inode));
  ++num_of_group;
}

GrpcConnections::Connections::iterator GrpcConnections::forget(Connections::iterator connection) {
  num_readings_ -= std::ssize(connection->second.readings);
  const auto count = num_of_group_.find(connection->second.group);
  if (--count->second == 0) num_of_group_.erase(count);
  return connections_.erase(connection);
}

bool GrpcConnections::has_room(const std::string& group) const {
  if (std::cmp_greater_equal(connections_.size(), limits_.in_all)) return false;
  if (limits_.per_address == 0) return true;
  const auto count = num_of_group_.find(group);
  return count == num_of_group_.end() || count->second < limits_.per_address;
}

// gRPC does not tell when it closes a connection. Its descriptor does.
void GrpcConnections::forget_closed() {
  for (auto it = connections_.begin(); it != connections_.end();) {
    it = it->second.is_open() ? std::next(it) : forget(it);
  }
  last_look_ = Clock::now();
}

bool GrpcConnections::shed(absl::string_view group) {
  auto longest = connections_.end();
  for (auto it = connections_.begin(); it != connections_.end(); ++it) {
    const Connection& connection = it->second;
    if (connection.num_calls > 0 || (!group.empty() && connection.group != group)) continue;
    if (longest == connections_.end() || connection.idle_since < longest->second.idle_since) {
      longest = it;
    }
  }
  if (longest == connections_.end()) return false;
  // gRPC sees the end of the stream, and closes. Where it has closed by itself there is room, and
  // the number may be somebody else's by now.
  if (longest->second.is_open()) ::shutdown(longest->second.descriptor, SHUT_RDWR);
  forget(longest);
  return true;
}

std::string GrpcConnections::make_room(absl::string_view address) {
  const std::string group = address_group(address);
  const std::lock_guard lock(mutex_);
  if (has_room(group)) return {};
  if (Clock::now() - last_look_ >= kLookInterval) forget_closed();
  if (has_room(group)) return {};
  const bool is_full = std::cmp_greater_equal(connections_.size(), limits_.in_all);
  if (shed(is_full ? "" : group)) return {};
  ++num_refused_;
  return is_full ? limits_.all_busy() : limits_.address_busy(address);
}

void GrpcConnections::begin_call(absl::string_view peer) {
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(connection_name(peer));
  if (found != connections_.end()) ++found->second.num_calls;
}

void GrpcConnections::end_call(absl::string_view peer) {
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(connection_name(peer));
  if (found == connections_.end() || found->second.num_calls == 0) return;
  --found->second.num_calls;
  found->second.idle_since = Clock::now();
}

int64_t GrpcConnections::num_open() {
  const std::lock_guard lock(mutex_);
  forget_closed();
  return std::ssize(connections_);
}

int64_t GrpcConnections::begin(absl::string_view peer, bool needs_key, Refuse refuse) {
  const std::lock_guard lock(mutex_);
  const int64_t id = next_id_++;
  const auto found = connections_.find(connection_name(peer));
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
  const auto found = connections_.find(connection_name(peer));
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
  if (!connection->is_open()) return;  // all of it ends
  connection->received = received_bytes(connection->descriptor).value_or(connection->received);
  connection->lease = {};
  Reading* oldest = nullptr;
  for (auto& [id, reading] : connection->readings) {
    if (!reading.refuse) continue;
    if (reading.needs_key) {
      if (oldest == nullptr) oldest = &reading;
    } else if (connection->received - reading.received_before > kSharedBytes) {
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
