// Request lines as text and as JSON, whatever the client sent; how many of them a second.
#include "server/request_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/details/log_msg.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "server/log.h"

namespace pbserve::server {
namespace {

using std::chrono::milliseconds;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Clock = RequestRecord::Clock;

RequestRecord record() {
  RequestRecord record;
  record.id = "r-1";
  record.caller = {.address = "10.0.0.1", .key_name = "alice", .key_use = nullptr};
  record.method = "POST";
  record.route = "/v1/completions";
  record.ended = record.arrived + milliseconds(1500);
  record.bytes_in = 31;
  record.bytes_out = 415;
  record.status = 200;
  return record;
}

RequestRecord finished() {
  RequestRecord finished = record();
  engine::Completion completion;
  completion.reason = engine::FinishReason::kLength;
  completion.usage = {.prompt_tokens = 100, .cached_tokens = 48, .completion_tokens = 7};
  completion.timings.queue_ms = 2.25;
  completion.timings.first_token_ms = 40.5;
  completion.sparse.density = 0.2185;
  finished.completion = completion;
  return finished;
}

nlohmann::json parsed(const RequestRecord& record) {
  return nlohmann::json::parse("{" + request_json(record) + "}");
}

TEST(RequestText, SaysAllOfAGeneration) {
  EXPECT_EQ(request_text(finished()),
            "POST /v1/completions id=r-1 status=200 client=10.0.0.1 key=alice total_ms=1500.0 "
            "in=31 out=415 prompt=100 cached=48 completion=7 queue_ms=2.2 ttft_ms=40.5 "
            "density=0.218 finish=length");
}

TEST(RequestText, LeavesOutWhatThereIsNot) {
  RequestRecord plain = record();
  plain.method = "";
  plain.route = "pbserve.v1.Inference/GetLoad";
  plain.caller.key_name = "";
  EXPECT_EQ(request_text(plain),
            "pbserve.v1.Inference/GetLoad id=r-1 status=200 client=10.0.0.1 total_ms=1500.0 "
            "in=31 out=415");
}

// Nothing that a client sends may look like another field, or another line.
TEST(RequestText, IsOneLineOfUtf8WithItsOwnFieldsOnly) {
  RequestRecord forged = record();
  forged.route = "/x status=200\n2026 I forged \xff";
  forged.method = "A=B";
  forged.status = 400;
  forged.error = "\"quoted\"\r\n\x01\xc3";
  const std::string line = request_text(forged);
  for (const char c : line) EXPECT_GE(static_cast<unsigned char>(c), 0x20u) << line;
  EXPECT_THAT(line, HasSubstr(R"("A=B" "/x status=200\n2026 I forged )"));
  EXPECT_THAT(line, EndsWith("error=\"\\\"quoted\\\"\\r\\n\\u0001\xEF\xBF\xBD\""));
  EXPECT_THAT(line, Not(HasSubstr("\xff")));
}

TEST(RequestJson, SaysAllOfAGeneration) {
  const auto json = parsed(finished());
  EXPECT_EQ(json, nlohmann::json::parse(R"({"request_id": "r-1", "client": "10.0.0.1",
      "key": "alice", "method": "POST", "route": "/v1/completions", "status": 200,
      "total_ms": 1500.0, "bytes_in": 31, "bytes_out": 415, "prompt_tokens": 100,
      "cached_tokens": 48, "completion_tokens": 7, "queue_ms": 2.3, "ttft_ms": 40.5,
      "density": 0.219, "finish_reason": "length"})"))
      << json;
}

TEST(RequestJson, EscapesWhatTheClientSent) {
  RequestRecord forged = record();
  forged.route = "/\"},{\"a\":\"\n\x01\xff";
  forged.error = "\xc3(\"";
  forged.trace.emplace().trace_id.fill(0x0a);
  const auto json = parsed(forged);
  EXPECT_EQ(json["route"], "/\"},{\"a\":\"\n\x01\xEF\xBF\xBD");
  EXPECT_EQ(json["error"], "\xEF\xBF\xBD(\"");
  EXPECT_EQ(json["trace_id"], "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a");
  EXPECT_FALSE(json.contains("finish_reason"));
}

std::string formatted(const char* logger, const std::string& message) {
  const spdlog::details::log_msg line(spdlog::log_clock::time_point(milliseconds(1001)), {}, logger,
                                      spdlog::level::warn, message);
  spdlog::memory_buf_t buffer;
  make_json_formatter()->format(line, buffer);
  return {buffer.data(), buffer.size()};
}

TEST(JsonLog, EveryLineIsAnObject) {
  EXPECT_EQ(formatted("pbserve", "a \"b\"\n\x01\xff"),
            "{\"time\":\"1970-01-01T00:00:01.001Z\",\"level\":\"warning\","
            "\"message\":\"a \\\"b\\\"\\n\\u0001\xEF\xBF\xBD\"}\n");
  EXPECT_THAT(formatted("requests", request_json(finished())),
              StartsWith("{\"time\":\"1970-01-01T00:00:01.001Z\",\"level\":\"warning\","
                         "\"message\":\"request\",\"request_id\":\"r-1\",\"client\":"));
  EXPECT_TRUE(nlohmann::json::accept(formatted("requests", request_json(record()))));
}

TEST(LineRate, BoundsTheLinesOfASecondAndCountsTheOthers) {
  LineRate rate(2);
  const Clock::time_point begin = Clock::now();
  EXPECT_TRUE(rate.ask(begin).may_write);
  EXPECT_TRUE(rate.ask(begin + milliseconds(400)).may_write);
  EXPECT_FALSE(rate.ask(begin + milliseconds(500)).may_write);
  EXPECT_FALSE(rate.ask(begin + milliseconds(999)).may_write);
  const LineRate::Verdict next = rate.ask(begin + milliseconds(1000));
  EXPECT_TRUE(next.may_write);
  EXPECT_EQ(next.left_out, 2);
  EXPECT_EQ(rate.ask(begin + milliseconds(2000)).left_out, 0);
}

// A record with a status and the name of a key, or without one.
RequestRecord by(const std::string& key_name, int status) {
  RequestRecord made = record();
  made.caller.key_name = key_name;
  made.status = status;
  return made;
}

// What a log of one line a second writes of one record after ten of another.
std::string written_after(const RequestRecord& flood, const RequestRecord& last) {
  std::ostringstream lines;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(lines)));
  {
    RequestLog log({.max_lines_per_s = 1});
    for (int i = 0; i < 10; ++i) log.write(flood);
    lines.str("");
    log.write(last);
  }
  spdlog::set_default_logger(before);
  return lines.str();
}

TEST(RequestLog, AFloodWithoutAKeyHidesNoLineOfAKey) {
  for (const int status : {200, 204, 400, 401, 404, 405, 503}) {
    EXPECT_THAT(written_after(by("", status), by("alice", 200)), HasSubstr("key=alice")) << status;
  }
  const std::string hidden = written_after(by("bob", 200), by("alice", 200));
  EXPECT_THAT(hidden, Not(HasSubstr("key=alice")));
  EXPECT_THAT(hidden, HasSubstr("10 request lines were left out"));
}

TEST(RequestLog, WhereThereAreNoKeysRefusalsHideNobody) {
  for (const int status : {400, 401, 404, 405}) {
    EXPECT_THAT(written_after(by("", status), by("", 200)), HasSubstr("status=200")) << status;
  }
}

}  // namespace
}  // namespace pbserve::server
