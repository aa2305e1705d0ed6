#include "server/http/connections.h"

#include <algorithm>
#include <utility>

#include "server/peer_address.h"

namespace pbserve::server {

HttpConnections::Scope::Scope(HttpConnections* all, absl::string_view address,
                              std::function<void()> close)
    : all_(all),
      connection_{.group = address_group(address), .close = std::move(close), .place = {}} {
  const std::lock_guard lock(all_->mutex_);
  ++all_->num_open_of_[connection_.group];  // may find no memory; then nothing has been counted
  ++all_->num_open_;
}

HttpConnections::Scope::~Scope() {
  end_wait();
  const std::lock_guard lock(all_->mutex_);
  --all_->num_open_;
  const auto count = all_->num_open_of_.find(connection_.group);
  if (--count->second == 0) all_->num_open_of_.erase(count);
}

void HttpConnections::Scope::begin_wait() {
  const std::lock_guard lock(all_->mutex_);
  if (std::exchange(connection_.is_waiting, true)) return;
  connection_.place = all_->waiting_.insert(all_->waiting_.end(), &connection_);
}

void HttpConnections::Scope::end_wait() {
  const std::lock_guard lock(all_->mutex_);
  if (std::exchange(connection_.is_waiting, false)) all_->waiting_.erase(connection_.place);
}

std::string HttpConnections::make_room(absl::string_view address) {
  const std::string group = address_group(address);
  const std::lock_guard lock(mutex_);
  const auto count = num_open_of_.find(group);
  const int64_t num_of_address = count == num_open_of_.end() ? 0 : count->second;
  if (limits_.per_address > 0 && num_of_address >= limits_.per_address) {
    if (shed(group)) return {};
    ++num_refused_;
    return limits_.address_busy(address);
  }
  if (num_open_ < limits_.in_all || shed({})) return {};
  ++num_refused_;
  return limits_.all_busy();
}

bool HttpConnections::shed(absl::string_view group) {
  const auto found =
      std::find_if(waiting_.begin(), waiting_.end(), [group](const Connection* connection) {
        return group.empty() || connection->group == group;
      });
  if (found == waiting_.end()) return false;
  Connection* const connection = *found;
  waiting_.erase(found);
  connection->is_waiting = false;
  connection->close();
  return true;
}

int64_t HttpConnections::num_open() const {
  const std::lock_guard lock(mutex_);
  return num_open_;
}

int64_t HttpConnections::num_refused() const {
  const std::lock_guard lock(mutex_);
  return num_refused_;
}

}  // namespace pbserve::server
