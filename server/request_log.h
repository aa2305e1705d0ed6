// The request log: one line for every request of either transport, when all is known about it.
// Never a prompt, a key, or the query of a URL.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "server/request_record.h"

namespace spdlog {
class logger;
}

namespace pbserve::server {

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
  int64_t max_lines_per_s = 1000;  // of each of three: with a key, without one, refused without one
};

// Thread-safe.
class RequestLog {
 public:
  explicit RequestLog(const RequestLogOptions& options);
  ~RequestLog();  // tells of lines that were left out last

  // Probes that get their answer are told at debug level only.
  void write(const RequestRecord& record);

 private:
  // Who shares a rate: those who need no key, or are refused, cannot use up that of callers whose
  // key has been checked; nor refusals that of who is served where there are no keys.
  enum Rate { kKeyed, kServed, kRefused, kNumRates };
  static Rate rate_of(const RequestRecord& record);
  void tell_left_out(int64_t count) const;

  const RequestLogOptions options_;
  const std::shared_ptr<spdlog::logger> log_;
  std::mutex mutex_;
  std::array<LineRate, kNumRates> rates_;
};

}  // namespace pbserve::server
