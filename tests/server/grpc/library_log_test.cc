// gRPC's own lines go where ours go.
#include "server/grpc/library_log.h"

#include <gmock/gmock.h>
#include <grpc/support/log.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <sstream>
#include <string>

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class GrpcLibraryLog : public ::testing::Test {
 protected:
  void SetUp() override {
    auto log = std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(lines_));
    log->set_pattern("%l %v");
    log->set_level(spdlog::level::debug);
    spdlog::set_default_logger(std::move(log));
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_DEBUG);
    take_library_log();
  }

  // The line that gRPC's `text` becomes.
  std::string line(gpr_log_severity severity, const char* text) {
    lines_.str("");
    gpr_log(__FILE__, __LINE__, severity, "%s", text);
    return lines_.str();
  }

 private:
  std::ostringstream lines_;
};

TEST_F(GrpcLibraryLog, LinesKeepTheirLevel) {
  EXPECT_THAT(line(GPR_LOG_SEVERITY_ERROR, "broken"), MatchesRegex("error gRPC .*: broken\n"));
  EXPECT_THAT(line(GPR_LOG_SEVERITY_INFO, "about"), MatchesRegex("info gRPC .*: about\n"));
  EXPECT_THAT(line(GPR_LOG_SEVERITY_DEBUG, "detail"), MatchesRegex("debug gRPC .*: detail\n"));
}

TEST_F(GrpcLibraryLog, WhatAnybodyCanCauseIsNoError) {
  EXPECT_THAT(line(GPR_LOG_SEVERITY_ERROR, "Handshake failed with fatal error X: y."),
              MatchesRegex("debug .*\n"));
}

TEST_F(GrpcLibraryLog, ARejectedTlsIdentityIsSaidToStayTheOldOne) {
  EXPECT_THAT(line(GPR_LOG_SEVERITY_ERROR, "Handshaker factory creation failed with X."),
              HasSubstr("New connections get the TLS identity that it had"));
}

TEST_F(GrpcLibraryLog, WithoutALogItWritesItself) {
  spdlog::drop_all();  // as at the end of the process
  ::testing::internal::CaptureStderr();
  gpr_log(GPR_ERROR, "late");
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("late"));
}

TEST_F(GrpcLibraryLog, WhyItAbortsIsWrittenBeforeItDoes) {
  EXPECT_DEATH(GPR_ASSERT(1 == 2), "assertion failed: 1 == 2");
}

}  // namespace
}  // namespace pbserve::server
