#include "server/grpc/library_log.h"

#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace pbserve::server {
namespace {

// As gRPC 1.51 writes them.
constexpr absl::string_view kAssertion = "assertion failed";
constexpr absl::string_view kHandshake = "Handshake failed";
constexpr absl::string_view kIdentity = "Handshaker factory creation failed";

spdlog::level::level_enum level_of(const gpr_log_func_args& line) {
  // Each handshake that fails is an error to it; anybody can cause thousands.
  if (absl::StartsWith(line.message, kHandshake)) return spdlog::level::debug;
  switch (line.severity) {
    case GPR_LOG_SEVERITY_DEBUG:
      return spdlog::level::debug;
    case GPR_LOG_SEVERITY_INFO:
      return spdlog::level::info;
    case GPR_LOG_SEVERITY_ERROR:
      break;
  }
  return spdlog::level::err;
}

void write(gpr_log_func_args* line) {
  // A copy: the log may end meanwhile, and gRPC's threads end after it.
  const std::shared_ptr<spdlog::logger> log = spdlog::default_logger();
  // After an assertion the process aborts before the log's thread would come to it.
  if (log == nullptr || absl::StartsWith(line->message, kAssertion)) {
    std::fprintf(stderr, "gRPC %s:%d: %s\n", line->file, line->line, line->message);
    return;
  }
  const bool is_identity = absl::StartsWith(line->message, kIdentity);
  log->log(level_of(*line), "gRPC {}:{}: {}{}", line->file, line->line, line->message,
           is_identity ? " New connections get the TLS identity that it had" : "");
}

}  // namespace

void take_library_log() { gpr_set_log_function(write); }

}  // namespace pbserve::server
