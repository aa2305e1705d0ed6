// The signals the process answers to: SIGTERM and SIGINT end it, SIGHUP makes it read its keys
// and TLS files anew.
#pragma once

#include <chrono>
#include <optional>

namespace pbserve::server {

class ProcessSignals {
 public:
  // Blocks them in the calling thread and in all that it starts from here on, so that main alone
  // takes them; ignores SIGPIPE, since a write to a closed socket is an error code. Before any
  // other thread exists.
  ProcessSignals();

  enum class Kind { kStop, kReload };
  struct Taken {
    Kind kind;
    int number;
  };

  // The next one, or nothing within the time. One thread.
  std::optional<Taken> wait_for(std::chrono::milliseconds timeout) const;

  // Ends the process as the signal does by itself: whoever started it sees which one it was.
  [[noreturn]] static void end_process(int number);
};

}  // namespace pbserve::server
