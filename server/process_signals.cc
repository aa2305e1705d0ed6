#include "server/process_signals.h"

#include <pthread.h>
#include <signal.h>

#include <cstdlib>

namespace pbserve::server {
namespace {

sigset_t set_of(std::initializer_list<int> numbers) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : numbers) sigaddset(&signals, number);
  return signals;
}

sigset_t taken_signals() { return set_of({SIGINT, SIGTERM, SIGHUP}); }

}  // namespace

ProcessSignals::ProcessSignals() {
  const sigset_t signals = taken_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

std::optional<ProcessSignals::Taken> ProcessSignals::wait_for(
    std::chrono::milliseconds timeout) const {
  const sigset_t signals = taken_signals();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  const auto rest = std::chrono::nanoseconds(timeout - seconds);
  const timespec limit{.tv_sec = seconds.count(), .tv_nsec = rest.count()};
  const int number = sigtimedwait(&signals, nullptr, &limit);
  if (number <= 0) return std::nullopt;
  return Taken{number == SIGHUP ? Kind::kReload : Kind::kStop, number};
}

void ProcessSignals::end_process(int number) {
  signal(number, SIG_DFL);
  raise(number);
  const sigset_t own = set_of({number});
  pthread_sigmask(SIG_UNBLOCK, &own, nullptr);  // here it ends
  std::_Exit(128 + number);
}

}  // namespace pbserve::server
