#include "server/log.h"

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <ctime>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/json/body.h"

namespace pbserve::server {
namespace {

// Lines wait here for whoever reads standard error. Where nobody does, the oldest are dropped: the
// threads that log also carry every stream and must not wait for a pipe.
constexpr size_t kLogLinesMax = 8192;
constexpr std::chrono::seconds kFlushTimeout{2};
constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%e %^%L%$ %v";
constexpr char kProcess[] = "pbserve";
constexpr char kRequests[] = "requests";

std::string utc_time(spdlog::log_clock::time_point time) {
  const std::time_t seconds = spdlog::log_clock::to_time_t(time);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch());
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900,
                         parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                         ms.count() % 1000);
}

std::string text_of(const spdlog::string_view_t& view) { return {view.data(), view.size()}; }

class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    const std::string payload = text_of(message.payload);
    const bool is_request = text_of(message.logger_name) == kRequests;
    Json fields = {{"time", utc_time(message.time)},
                   {"level", text_of(spdlog::level::to_string_view(message.level))},
                   {"message", is_request ? "request" : payload}};
    std::string object = dump_json(fields);
    if (is_request) {
      object.back() = ',';
      object += payload + "}";
    }
    object += '\n';
    line.append(object.data(), object.data() + object.size());
  }

  std::unique_ptr<spdlog::formatter> clone() const override { return make_json_formatter(); }
};

}  // namespace

std::unique_ptr<spdlog::formatter> make_json_formatter() {
  return std::make_unique<JsonFormatter>();
}

void start_log(const std::string& level, const std::string& format) {
  spdlog::init_thread_pool(kLogLinesMax, /*threads_n=*/1);
  auto log = spdlog::create_async_nb<spdlog::sinks::stderr_sink_mt>(kProcess);
  // Through the same sink, so that a line is never torn and the lines keep their order.
  auto requests =
      std::make_shared<spdlog::async_logger>(kRequests, log->sinks().front(), spdlog::thread_pool(),
                                             spdlog::async_overflow_policy::overrun_oldest);
  spdlog::register_logger(requests);
  if (format == "json") {
    log->set_formatter(make_json_formatter());
  } else {
    log->set_pattern(kTextPattern);
  }
  log->set_level(spdlog::level::from_str(level));
  requests->set_level(log->level());
  spdlog::set_default_logger(std::move(log));
}

std::shared_ptr<spdlog::logger> request_logger() {
  auto requests = spdlog::get(kRequests);
  return requests != nullptr ? requests : spdlog::default_logger();
}

int64_t num_dropped_log_lines() {
  const auto writer = spdlog::thread_pool();  // null where start_log() has not run
  return writer ? static_cast<int64_t>(writer->overrun_counter()) : 0;
}

bool flush_log() {
  if (const int64_t dropped = num_dropped_log_lines(); dropped > 0) {
    spdlog::warn("{} log lines were dropped: standard error was read too slowly", dropped);
  }
  std::packaged_task<void()> shut_down([] { spdlog::shutdown(); });
  const std::future<void> written = shut_down.get_future();
  std::thread(std::move(shut_down)).detach();
  return written.wait_for(kFlushTimeout) == std::future_status::ready;
}

}  // namespace pbserve::server
