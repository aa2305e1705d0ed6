#include "server/descriptor_watch.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <limits>
#include <system_error>

namespace pbserve::server {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<Clock::time_point> used_up = Clock::time_point::min();

}  // namespace

void note_descriptors_used_up() { used_up = Clock::now(); }

double s_since_descriptors_used_up() {
  const Clock::time_point last = used_up;
  if (last == Clock::time_point::min()) return std::numeric_limits<double>::infinity();
  return std::chrono::duration<double>(Clock::now() - last).count();
}

std::optional<int64_t> num_open_descriptors() {
  std::error_code error;
  std::filesystem::directory_iterator at("/proc/self/fd", error);
  int64_t count = -1;  // the one that looks is among them
  while (!error && at != std::filesystem::directory_iterator()) {
    ++count;
    at.increment(error);
  }
  return error ? std::nullopt : std::optional(count);
}

int64_t num_free_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::numeric_limits<int64_t>::max();
  constexpr auto kMost = static_cast<rlim_t>(std::numeric_limits<int64_t>::max());
  const std::optional<int64_t> num_open = num_open_descriptors();
  if (!num_open) return 0;
  return std::max<int64_t>(static_cast<int64_t>(std::min(limit.rlim_cur, kMost)) - *num_open, 0);
}

}  // namespace pbserve::server
