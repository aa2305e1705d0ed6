// The request log: one line for every request of either transport, when all is known about it.
// Never a prompt, a key, or the query of a URL.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "engine/request.h"
#include "server/caller.h"

namespace spdlog {
class logger;
}

namespace pbserve::server {

// What came of one request. Both fronts fill it; a log line, and whatever else tells of requests,
// is made from it alone.
struct RequestRecord {
  using Clock = std::chrono::steady_clock;

  std::string id;
  std::string trace_id;  // or empty
  Caller caller;
  std::string method;  // of HTTP; empty for gRPC
  std::string route;   // the path as the client wrote it, without the query, or the gRPC method
  bool is_probe = false;

  std::chrono::system_clock::time_point arrived_at;
  Clock::time_point arrived;                   // its head, or its metadata, is there
  std::optional<Clock::time_point> submitted;  // to the engine, if it got so far
  std::optional<Clock::time_point> prefill_began;
  std::optional<Clock::time_point> first_token;
  Clock::time_point ended;

  int64_t bytes_in = 0;   // of bodies or messages, without headers and framing
  int64_t bytes_out = 0;  // the same, as far as they were written

  int status = 0;     // HTTP's, or what HTTP's would be; 0 while nobody knows
  std::string error;  // if it did not end well
  std::optional<engine::Completion> completion;  // of a request that the engine has taken
};

// `POST /v1/completions id=x status=200 ...`: one line of UTF-8, whatever the client sent.
std::string request_text(const RequestRecord& record);
// The same as members of a JSON object, without its braces.
std::string request_json(const RequestRecord& record);

// At most so many lines in each second.
class LineRate {
 public:
  explicit LineRate(int64_t lines_per_s) : limit_(lines_per_s) {}

  struct Verdict {
    bool may_write = false;
    int64_t left_out = 0;  // lines of earlier seconds that nobody has told of
  };
  Verdict ask(RequestRecord::Clock::time_point now);

 private:
  const int64_t limit_;
  RequestRecord::Clock::time_point second_;  // when it began
  int64_t num_written_ = 0;
  int64_t num_left_out_ = 0;
};

struct RequestLogOptions {
  bool is_on = true;
  bool is_json = false;
  int64_t max_lines_per_s = 1000;
};

// Thread-safe.
class RequestLog {
 public:
  explicit RequestLog(const RequestLogOptions& options);
  ~RequestLog();  // tells of lines that were left out last

  // Probes that get their answer are told at debug level only.
  void write(const RequestRecord& record);

 private:
  void tell_left_out(int64_t count) const;

  const RequestLogOptions options_;
  const std::shared_ptr<spdlog::logger> log_;
  std::mutex mutex_;
  LineRate rate_;
};

}  // namespace pbserve::server
