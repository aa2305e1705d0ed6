// The connections of the HTTP port: how many are open, in all and of each client, and which of them
// wait for a request. Where there is no room, one that waits makes room for one that comes, so that
// nobody locks others out by connecting and saying nothing. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/strings/string_view.h"
#include "server/connection_limits.h"

namespace pbserve::server {

class HttpConnections {
 private:
  struct Connection {
    std::string group;  // address_group()
    std::function<void()> close;
    bool is_waiting = false;
    std::list<Connection*>::iterator place;  // in waiting_, while it waits
  };

 public:
  explicit HttpConnections(ConnectionLimits limits) : limits_(limits) {}
  HttpConnections(const HttpConnections&) = delete;
  HttpConnections& operator=(const HttpConnections&) = delete;

  // One open connection, for as long as the scope lasts.
  class Scope {
   public:
    // `close` ends the connection if it is waiting still; called from any thread, under a lock,
    // and possibly after the scope's end.
    Scope(HttpConnections* all, absl::string_view address, std::function<void()> close);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    // From the first call to the second nothing is owed to its client: it waits for a handshake,
    // for a request or the rest of its header, or for the client to read a last answer.
    void begin_wait();
    void end_wait();

   private:
    HttpConnections* const all_;
    Connection connection_;
  };

  // Why a new connection from `address` cannot be taken; empty if it can. Closes the one that has
  // waited longest where a limit is reached: of that address, if it is the address's limit.
  std::string make_room(absl::string_view address);

  int64_t num_open() const;
  int64_t num_refused() const;  // for want of room, so far

 private:
  // False: none of `group` waits; an empty one stands for all.
  bool shed(absl::string_view group);

  const ConnectionLimits limits_;
  mutable std::mutex mutex_;
  int64_t num_open_ = 0;
  int64_t num_refused_ = 0;
  std::unordered_map<std::string, int64_t> num_open_of_;  // by group
  std::list<Connection*> waiting_;                        // the longest first
};

}  // namespace pbserve::server
