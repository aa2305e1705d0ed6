// One round after the other on a thread that must not end before its time: what a round throws, for
// want of memory above all, costs that round.
#pragma once

#include <spdlog/spdlog.h>

#include <chrono>
#include <exception>

namespace pbserve::server {

class RoundGuard {
 public:
  // `name` is the thread's, for the log; a literal.
  explicit RoundGuard(const char* name) : name_(name) {}

  // True if the round threw nothing. What it throws is logged, at most once a minute.
  template <class Round>
  bool run(const Round& round) {
    try {
      round();
      return true;
    } catch (const std::exception& thrown) {
      tell(thrown.what());
      return false;
    }
  }

 private:
  void tell(const char* what) {
    constexpr auto kLogInterval = std::chrono::minutes(1);
    const auto now = std::chrono::steady_clock::now();
    if (now < next_line_) return;
    next_line_ = now + kLogInterval;
    spdlog::error("{}: a round failed and the next one follows: {}", name_, what);
  }

  const char* const name_;
  std::chrono::steady_clock::time_point next_line_{};
};

}  // namespace pbserve::server
