// The process's log on standard error: text or JSON, written by a thread of its own, so that nobody
// who logs waits for who reads it.
#pragma once

#include <spdlog/formatter.h>

#include <cstdint>
#include <memory>
#include <string>

namespace spdlog {
class logger;
}

namespace pbserve::server {

// `level`: debug, info, warning or error; `format`: text or json. Once in a process.
void start_log(const std::string& level, const std::string& format);

// The logger of request lines. In JSON its messages are members of the line's object as they stand,
// by request_json(). The default logger where start_log() has not run.
std::shared_ptr<spdlog::logger> request_logger();

// Lines that were lost so far, as nobody read standard error in time.
int64_t num_dropped_log_lines();

// Writes what waits; false if the reader of the log has stalled, which may not keep the process.
// REQUIRES: no other thread logs any more.
bool flush_log();

// {"time": RFC 3339 in UTC, "level": ..., "message": ...}, a line each.
std::unique_ptr<spdlog::formatter> make_json_formatter();

}  // namespace pbserve::server
