// One call without gRPC around it: whoever ends it first, and whatever its handler throws, it ends
// once, and no worker touches it afterwards.
#include "server/grpc/call.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <thread>

#include "tests/engine/demo_engine.h"

namespace pbserve::server {
namespace {

class ProbeCall : public GrpcCall {
 public:
  ProbeCall(GrpcContext* context, grpc::GenericCallbackServerContext* call, GrpcCallOptions options,
            std::function<void()> work)
      : GrpcCall(context, call, std::move(options)), work_(std::move(work)) {}

  bool is_over() {
    const std::lock_guard lock(mutex_);
    return is_finished_;
  }
  int num_served() const { return num_served_; }
  const RequestRecord& record() const { return request_->record; }

 private:
  void serve(grpc::ByteBuffer*) override {
    ++num_served_;
    work_();
    finish(absl::OkStatus());
  }

  const std::function<void()> work_;
  std::atomic<int> num_served_ = 0;
};

class GrpcCallTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { engine_ = engine::make_engine(engine::demo_config()).release(); }
  static void TearDownTestSuite() { delete engine_; }

  std::shared_ptr<ProbeCall> start(GrpcCallOptions options, std::function<void()> work) {
    options.request = std::make_shared<OpenRequest>(Transport::kGrpc, app_.reports, "10.0.0.1");
    options.count = &context_.calls;
    auto call = std::make_shared<ProbeCall>(&context_, &grpc_, std::move(options), std::move(work));
    call->start();
    return call;
  }

  static inline engine::Engine* engine_ = nullptr;

  App app_{engine_, ServerConfig{}, nullptr, nullptr};
  GrpcContext context_{
      .app = &app_,
      .calls = {},
      .checks = {},
      .watches = {},
      .heap = {},
      .connections = std::make_shared<GrpcConnections>(&app_.buffers, ConnectionLimits{})};
  grpc::GenericCallbackServerContext grpc_;
};

constexpr std::chrono::seconds kLong(60);

TEST_F(GrpcCallTest, AMessageThatComesAfterTheEndReachesNoWorker) {
  const auto call = start({.request = {},
                           .count = nullptr,
                           .needs_key = true,
                           .is_cheap = false,
                           .receive_timeout = std::chrono::seconds(0)},
                          [] {});
  while (!call->is_over()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  call->OnReadDone(true);
  app_.workers.join();
  EXPECT_EQ(call->num_served(), 0);
  call->OnDone();
}

TEST_F(GrpcCallTest, WhatAHandlerThrowsEndsItsCallAlone) {
  const GrpcCallOptions options{.request = {},
                                .count = nullptr,
                                .needs_key = true,
                                .is_cheap = false,
                                .receive_timeout = kLong};
  const auto unexpected = start(options, [] { throw std::length_error("too long"); });
  const auto no_memory = start(options, [] { throw std::bad_alloc(); });
  const auto good = start(options, [] {});
  for (const auto& call : {unexpected, no_memory, good}) call->OnReadDone(true);
  app_.workers.join();
  EXPECT_EQ(unexpected->record().code, absl::StatusCode::kInternal);
  EXPECT_EQ(no_memory->record().code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(no_memory->record().status, 503);
  EXPECT_EQ(good->record().code, absl::StatusCode::kOk);
  for (const auto& call : {unexpected, no_memory, good}) call->OnDone();
}

TEST_F(GrpcCallTest, OnlyWorkIsRefusedWhileTheWorkersRefuse) {
  app_.workers.refuse(std::chrono::steady_clock::now() + kLong);
  GrpcCallOptions options{.request = {},
                          .count = nullptr,
                          .needs_key = true,
                          .is_cheap = false,
                          .receive_timeout = kLong};
  const auto work = start(options, [] {});
  options.is_cheap = true;
  const auto cheap = start(options, [] {});
  for (const auto& call : {work, cheap}) call->OnReadDone(true);
  app_.workers.join();
  EXPECT_EQ(work->num_served(), 0);
  EXPECT_EQ(work->record().code, absl::StatusCode::kUnavailable);
  EXPECT_EQ(cheap->record().code, absl::StatusCode::kOk);
  for (const auto& call : {work, cheap}) call->OnDone();
}

}  // namespace
}  // namespace pbserve::server
