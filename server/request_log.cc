#include "server/request_log.h"

#include <spdlog/spdlog.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/api_error.h"
#include "server/json/body.h"
#include "server/log.h"

namespace pbserve::server {
namespace {

using Clock = RequestRecord::Clock;

constexpr auto kWindow = std::chrono::seconds(1);

// Text that may be the client's: as it stands if nobody can take it for another field, else quoted
// and escaped as JSON, which is UTF-8 and one line.
std::string shown(absl::string_view text) {
  bool is_plain = !text.empty();
  for (const unsigned char c : text) {
    is_plain = is_plain && absl::ascii_isgraph(c) && c != '"' && c != '=' && c != '\\';
  }
  return is_plain ? std::string(text) : dump_json(Json(std::string(text)));
}

double total_ms(const RequestRecord& record) {
  return std::chrono::duration<double, std::milli>(record.ended - record.arrived).count();
}

// To the digits that the text shows too: `scale` is 10 for one.
double rounded(double value, double scale) { return std::round(value * scale) / scale; }

std::string finish_reason(const RequestRecord& record) {
  if (!record.error.empty()) return "";
  return record.completion->reason == engine::FinishReason::kLength ? "length" : "stop";
}

std::string completion_text(const engine::Completion& completion) {
  return absl::StrFormat(
      " prompt=%d cached=%d completion=%d queue_ms=%.1f ttft_ms=%.1f density=%.3f",
      completion.usage.prompt_tokens, completion.usage.cached_tokens,
      completion.usage.completion_tokens, completion.timings.queue_ms,
      completion.timings.first_token_ms, completion.sparse.density);
}

void add_completion(const engine::Completion& completion, Json* fields) {
  Json& json = *fields;
  json["prompt_tokens"] = completion.usage.prompt_tokens;
  json["cached_tokens"] = completion.usage.cached_tokens;
  json["completion_tokens"] = completion.usage.completion_tokens;
  // What was not reached is left out.
  if (completion.timings.queue_ms >= 0) {
    json["queue_ms"] = rounded(completion.timings.queue_ms, 10);
  }
  if (completion.timings.first_token_ms >= 0) {
    json["ttft_ms"] = rounded(completion.timings.first_token_ms, 10);
  }
  json["density"] = rounded(completion.sparse.density, 1000);
}

// Of a probe: also with "not now", and until it left.
bool is_answered(int status) {
  constexpr int kServiceUnavailable = 503;
  return status < 400 || status == kServiceUnavailable || status == kClientClosedRequest;
}

}  // namespace

std::string request_text(const RequestRecord& record) {
  std::string line;
  if (!record.method.empty()) line = absl::StrCat(shown(record.method), " ");
  absl::StrAppend(&line, shown(record.route), " id=", shown(record.id), " status=", record.status,
                  " client=", shown(record.caller.address));
  if (!record.caller.key_name.empty()) absl::StrAppend(&line, " key=", record.caller.key_name);
  if (record.trace) absl::StrAppend(&line, " trace=", to_hex(record.trace->trace_id));
  absl::StrAppendFormat(&line, " total_ms=%.1f in=%d out=%d", total_ms(record), record.bytes_in,
                        record.bytes_out);
  if (record.completion) {
    line += completion_text(*record.completion);
    if (record.error.empty()) absl::StrAppend(&line, " finish=", finish_reason(record));
  }
  if (!record.error.empty()) {
    absl::StrAppend(&line, " error=", dump_json(Json(record.error)));
  }
  return line;
}

std::string request_json(const RequestRecord& record) {
  Json fields = {{"request_id", record.id}};
  if (record.trace) fields["trace_id"] = to_hex(record.trace->trace_id);
  fields["client"] = record.caller.address;
  if (!record.caller.key_name.empty()) fields["key"] = record.caller.key_name;
  if (!record.method.empty()) fields["method"] = record.method;
  fields["route"] = record.route;
  fields["status"] = record.status;
  fields["total_ms"] = rounded(total_ms(record), 10);
  fields["bytes_in"] = record.bytes_in;
  fields["bytes_out"] = record.bytes_out;
  if (record.completion) {
    add_completion(*record.completion, &fields);
    if (record.error.empty()) fields["finish_reason"] = finish_reason(record);
  }
  if (!record.error.empty()) fields["error"] = record.error;
  const std::string object = dump_json(fields);
  return object.substr(1, object.size() - 2);
}

LineRate::Verdict LineRate::ask(Clock::time_point now) {
  Verdict verdict;
  if (now - second_ >= kWindow) {
    second_ = now;
    num_written_ = 0;
    verdict.left_out = std::exchange(num_left_out_, 0);
  }
  verdict.may_write = num_written_ < limit_;
  ++(verdict.may_write ? num_written_ : num_left_out_);
  return verdict;
}

RequestLog::RequestLog(const RequestLogOptions& options)
    : options_(options),
      log_(request_logger()),
      rates_{LineRate(options.max_lines_per_s), LineRate(options.max_lines_per_s),
             LineRate(options.max_lines_per_s)} {}

RequestLog::~RequestLog() {
  int64_t count = 0;
  for (LineRate& rate : rates_) count += rate.ask(Clock::time_point::max()).left_out;
  tell_left_out(count);
}

RequestLog::Rate RequestLog::rate_of(const RequestRecord& record) {
  if (!record.caller.key_name.empty()) return kKeyed;
  return record.status >= 400 && record.status < 500 ? kRefused : kServed;
}

void RequestLog::write(const RequestRecord& record) {
  const bool is_quiet = record.is_probe && is_answered(record.status);
  const auto level = is_quiet ? spdlog::level::debug : spdlog::level::info;
  if (!options_.is_on || !log_->should_log(level)) return;
  LineRate::Verdict verdict;
  {
    const std::lock_guard lock(mutex_);
    verdict = rates_[rate_of(record)].ask(Clock::now());
  }
  tell_left_out(verdict.left_out);
  if (!verdict.may_write) return;
  log_->log(level, options_.is_json ? request_json(record) : request_text(record));
}

void RequestLog::tell_left_out(int64_t count) const {
  if (count == 0) return;
  spdlog::warn("{} request lines were left out: more than server.max_log_lines_per_s = {}", count,
               options_.max_lines_per_s);
}

}  // namespace pbserve::server
