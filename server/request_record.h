// What came of one request of either transport. Both fronts fill it; its log line, its share of the
// metrics and its spans are made from it alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "engine/request.h"
#include "server/caller.h"
#include "server/tracing/trace_context.h"

namespace pbserve::server {

enum class Transport : uint8_t { kHttp, kGrpc };

struct RequestRecord {
  using Clock = std::chrono::steady_clock;

  std::string id;
  std::optional<TraceContext> trace;  // the caller's; one of ours if spans are exported
  Caller caller;
  Transport transport = Transport::kHttp;
  std::string method;  // of HTTP; empty for gRPC
  std::string route;   // the path as the client wrote it, without the query, or the gRPC method
  std::string
      handler;  // what serves it, by the table of routes or methods; empty where nothing does
  bool is_probe = false;
  bool generates = false;  // what serves it goes through the engine's queue

  std::chrono::system_clock::time_point arrived_at;
  Clock::time_point arrived;                   // its head, or its metadata, is there
  std::optional<Clock::time_point> submitted;  // to the engine, if it got so far
  std::optional<Clock::time_point> prefill_began;
  std::optional<Clock::time_point> first_token;
  Clock::time_point ended;

  int64_t bytes_in = 0;   // of bodies or messages, without headers and framing
  int64_t bytes_out = 0;  // the same, as far as they were written

  int status = 0;  // HTTP's, or what HTTP's would be; 0 while nobody knows
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string error;                             // if it did not end well
  std::string error_reason;                      // the same in a word, for machines
  std::optional<engine::Completion> completion;  // of a request that the engine has taken
};

// Its method, if HTTP has one of that name, or "other": a client may send any word.
std::string known_method(const RequestRecord& record);

}  // namespace pbserve::server
