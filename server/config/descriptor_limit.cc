#include "server/config/descriptor_limit.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace pbserve::server {
namespace {

// Model files, GPU devices, event queues, log; a server on the CPU has about 20 open.
constexpr int64_t kReserved = 128;
// Fewer connections than this are a mistake and not a wish.
constexpr int64_t kFewest = 32;

void lower(const char* key, int64_t limit, int64_t value, int32_t* max_connections) {
  spdlog::warn("{} = {} is lowered to {}: RLIMIT_NOFILE = {}, of which {} are kept for other files",
               key, *max_connections, value, limit, kReserved);
  *max_connections = static_cast<int32_t>(value);
}

}  // namespace

int64_t raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::numeric_limits<int64_t>::max();
  const rlim_t soft = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    spdlog::warn("RLIMIT_NOFILE cannot be raised from {} to {}", soft, limit.rlim_max);
    limit.rlim_cur = soft;
  }
  constexpr auto kMax = static_cast<rlim_t>(std::numeric_limits<int64_t>::max());
  return static_cast<int64_t>(std::min(limit.rlim_cur, kMax));  // RLIM_INFINITY is beyond
}

absl::Status fit_connections(int64_t limit, ServerConfig* config) {
  const int64_t room = limit - kReserved;
  if (room < kFewest) {
    return absl::FailedPreconditionError(
        absl::StrCat("RLIMIT_NOFILE = ", limit, ": must be at least ", kReserved + kFewest,
                     " (ulimit -n, or LimitNOFILE of the service)"));
  }
  int32_t& http = config->http.max_connections;
  int32_t& grpc = config->grpc.max_connections;
  const int64_t wanted = int64_t{http} + (config->grpc.enabled ? grpc : 0);
  if (wanted <= room) return absl::OkStatus();
  // In proportion, and at least one each.
  const int64_t http_share = std::clamp<int64_t>(room * http / wanted, 1, room - 1);
  const int64_t grpc_share = std::max<int64_t>(room * grpc / wanted, 1);
  lower("http.max_connections", limit, http_share, &http);
  if (config->grpc.enabled) lower("grpc.max_connections", limit, grpc_share, &grpc);
  return absl::OkStatus();
}

}  // namespace pbserve::server
