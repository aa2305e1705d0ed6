// The bounded queue between the engine and a client: order, wake-ups, overflow, departure.
#include "server/response_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <string>
#include <thread>

#include "server/generation.h"

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;

struct Watched {
  explicit Watched(int64_t capacity_bytes = 1 << 20, bool wants_progress = true,
                   ByteBudget* buffers = nullptr)
      : channel(std::make_shared<ResponseChannel>(
            ChannelOptions{.capacity_bytes = capacity_bytes,
                           .buffers = buffers,
                           .wants_progress = wants_progress,
                           .on_ready = [this] { ++num_ready; },
                           .on_end =
                               [this](const engine::Completion& completion, bool left) {
                                 ++num_ended;
                                 end_status = completion.status;
                                 reader_left = left;
                               }})),
        sink(channel->make_sink()) {}

  void set_cancel() {
    channel->set_cancel([this] { ++num_cancelled; });
  }
  void say(const std::string& text) { sink->on_text({.text = text, .token_ids = {1}}); }
  // The next event's text; "" for other events, "(none)" where there is none.
  std::string next_text() {
    const auto event = channel->next();
    if (!event) return "(none)";
    const auto* delta = std::get_if<engine::TextDelta>(&*event);
    return delta == nullptr ? "" : delta->text;
  }

  std::atomic<int> num_ready = 0;
  std::atomic<int> num_cancelled = 0;
  int num_ended = 0;
  absl::Status end_status;
  bool reader_left = false;
  std::shared_ptr<ResponseChannel> channel;
  std::unique_ptr<engine::ResponseSink> sink;
};

TEST(ResponseChannel, KeepsTheOrder) {
  Watched watched;
  watched.sink->on_accepted({.prompt_tokens = 3});
  watched.sink->on_progress({.processed_tokens = 1});
  watched.say("a");
  watched.sink->on_done({});
  EXPECT_TRUE(std::holds_alternative<engine::Accepted>(*watched.channel->next()));
  EXPECT_TRUE(std::holds_alternative<engine::PrefillProgress>(*watched.channel->next()));
  EXPECT_EQ(watched.next_text(), "a");
  EXPECT_TRUE(std::holds_alternative<engine::Completion>(*watched.channel->next()));
  EXPECT_FALSE(watched.channel->next().has_value());
}

TEST(ResponseChannel, ProgressOnlyWhereWanted) {
  Watched watched(1 << 20, /*wants_progress=*/false);
  watched.sink->on_progress({.processed_tokens = 1});
  EXPECT_EQ(watched.next_text(), "(none)");
}

TEST(ResponseChannel, WakesOncePerEmptyLook) {
  Watched watched;
  watched.say("a");
  EXPECT_EQ(watched.num_ready, 0);  // nobody has looked yet
  EXPECT_EQ(watched.next_text(), "a");
  EXPECT_EQ(watched.next_text(), "(none)");
  watched.say("b");
  watched.say("c");
  EXPECT_EQ(watched.num_ready, 1);
}

TEST(ResponseChannel, OverflowCancelsAndSaysWhy) {
  Watched watched(2000);
  watched.set_cancel();
  for (int i = 0; i < 20; ++i) watched.say(std::string(300, 'x'));
  EXPECT_EQ(watched.num_cancelled, 1);
  engine::Completion cancelled;
  cancelled.status = absl::CancelledError("cancelled");
  watched.sink->on_done(cancelled);
  std::string last;
  std::optional<ResponseEvent> event = watched.channel->next();
  while (event && !std::holds_alternative<engine::Completion>(*event)) {
    event = watched.channel->next();
  }
  ASSERT_TRUE(event.has_value());
  const absl::Status status = std::get<engine::Completion>(*event).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("response_buffer_bytes = 2000"));
}

// Many that each stay below their own bound.
TEST(ResponseChannel, AllTogetherAreBoundedAndWhoReadsIsSpared) {
  ByteBudget buffers(kFreeResponseBytes);
  Watched unread(1 << 30, true, &buffers);
  Watched read(1 << 30, true, &buffers);
  unread.set_cancel();
  read.set_cancel();
  const std::string text(1000, 'x');
  int num_said = 0;
  for (; num_said < 1000 && unread.num_cancelled == 0; ++num_said) {
    EXPECT_LE(buffers.held_bytes(), kFreeResponseBytes);
    unread.say(text);
    read.say(text);
    EXPECT_EQ(read.next_text(), text);
  }
  EXPECT_GT(num_said, 80) << "the free part and the budget";
  EXPECT_LT(num_said, 130);
  EXPECT_EQ(read.num_cancelled, 0);
  EXPECT_EQ(buffers.held_bytes(), 0) << "what failed holds nothing";
  unread.sink->on_done({});
  EXPECT_THAT(std::string(unread.end_status.message()),
              HasSubstr("server.max_buffered_bytes = 65536"));
  EXPECT_EQ(unread.end_status.code(), absl::StatusCode::kResourceExhausted);
}

TEST(ResponseChannel, WhoLeavesGivesTheRoomBack) {
  ByteBudget buffers(1 << 20);
  Watched watched(1 << 30, true, &buffers);
  watched.say(std::string(kFreeResponseBytes * 2, 'x'));
  EXPECT_GT(buffers.held_bytes(), kFreeResponseBytes);
  watched.channel->abandon();
  EXPECT_EQ(buffers.held_bytes(), 0);
}

// After a drain that timed out the engine outlives the budget.
TEST(ResponseChannel, WhoHasLeftNeedsNoBudgetAnyMore) {
  std::optional<ByteBudget> buffers(kFreeResponseBytes);
  Watched watched(1 << 30, true, &*buffers);
  for (int i = 0; i < 200; ++i) watched.say(std::string(1000, 'x'));
  watched.channel->abandon();
  buffers.emplace(7);  // another in its place
  watched.sink->on_done({});
  EXPECT_THAT(std::string(watched.end_status.message()),
              HasSubstr("server.max_buffered_bytes = 65536"));
  watched.sink.reset();
  watched.channel.reset();
  EXPECT_EQ(buffers->held_bytes(), 0);
}

TEST(ResponseChannel, WhatIsDroppedIsNotCharged) {
  ByteBudget buffers(1 << 20);
  Watched watched(2 * kFreeResponseBytes, true, &buffers);
  watched.set_cancel();
  watched.say(std::string(kFreeResponseBytes + 1000, 'x'));
  const int64_t held = buffers.held_bytes();
  EXPECT_GT(held, 0);
  watched.say(std::string(kFreeResponseBytes, 'x'));
  EXPECT_EQ(watched.num_cancelled, 1);
  EXPECT_EQ(buffers.held_bytes(), held);
}

TEST(ResponseChannel, ReadingFreesTheBuffer) {
  Watched watched(2000);
  watched.set_cancel();
  for (int i = 0; i < 100; ++i) {
    watched.say(std::string(300, 'x'));
    watched.next_text();
  }
  EXPECT_EQ(watched.num_cancelled, 0);
}

TEST(ResponseChannel, AbandonCancelsOnce) {
  Watched watched;
  watched.set_cancel();
  watched.say("a");
  watched.channel->abandon();
  watched.channel->abandon();
  watched.say("b");
  EXPECT_EQ(watched.num_cancelled, 1);
  EXPECT_EQ(watched.next_text(), "(none)");
  watched.sink->on_done({});
  EXPECT_EQ(watched.num_ended, 1);
  EXPECT_TRUE(watched.reader_left);
  EXPECT_EQ(watched.num_ready, 0);
}

TEST(ResponseChannel, AbandonBeforeTheHandleIsKnownCancelsWhenItIs) {
  Watched watched;
  watched.channel->abandon();
  EXPECT_EQ(watched.num_cancelled, 0);
  watched.set_cancel();
  EXPECT_EQ(watched.num_cancelled, 1);
}

// The engine may hold its end long after the reader's event loop is gone.
TEST(ResponseChannel, AbandonLetsGoOfTheWakeUpCall) {
  auto timer = std::make_shared<int>();
  const std::weak_ptr<int> watch = timer;
  const auto channel = std::make_shared<ResponseChannel>(
      ChannelOptions{.on_ready = [timer = std::move(timer)] {}, .on_end = nullptr});
  const auto sink = channel->make_sink();
  EXPECT_FALSE(watch.expired());
  channel->abandon();
  EXPECT_TRUE(watch.expired());
  sink->on_done({});
}

TEST(ResponseChannel, AbandonWaitsForAWakeUpCallThatRuns) {
  std::atomic<bool> is_running = false;
  std::atomic<bool> may_end = false;
  std::atomic<bool> has_ended = false;
  const auto channel =
      std::make_shared<ResponseChannel>(ChannelOptions{.on_ready =
                                                           [&] {
                                                             is_running = true;
                                                             while (!may_end)
                                                               std::this_thread::yield();
                                                             has_ended = true;
                                                           },
                                                       .on_end = nullptr});
  const auto sink = channel->make_sink();
  EXPECT_FALSE(channel->next().has_value());
  std::thread engine([&] { sink->on_text({.text = "a", .token_ids = {1}}); });
  while (!is_running) std::this_thread::yield();
  std::thread helper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    may_end = true;
  });
  channel->abandon();
  EXPECT_TRUE(has_ended);
  engine.join();
  helper.join();
}

TEST(ResponseChannel, TheWakeUpCallMayAbandon) {
  std::shared_ptr<ResponseChannel> channel;
  int num_calls = 0;
  channel = std::make_shared<ResponseChannel>(ChannelOptions{.on_ready =
                                                                 [&, own = std::string(100, 'x')] {
                                                                   channel->abandon();
                                                                   num_calls += own[99] == 'x';
                                                                 },
                                                             .on_end = nullptr});
  const auto sink = channel->make_sink();
  EXPECT_FALSE(channel->next().has_value());
  sink->on_text({.text = "a", .token_ids = {1}});
  sink->on_text({.text = "b", .token_ids = {1}});
  EXPECT_EQ(num_calls, 1);
}

TEST(ResponseChannel, NoCancelAfterTheEnd) {
  Watched watched;
  watched.set_cancel();
  watched.sink->on_done({});
  watched.channel->abandon();
  EXPECT_EQ(watched.num_cancelled, 0);
  EXPECT_FALSE(watched.reader_left);
}

TEST(ResponseChannel, TwoThreadsLoseNothing) {
  Watched watched(1 << 30);
  constexpr int kCount = 20000;
  std::thread producer([&] {
    for (int i = 0; i < kCount; ++i) watched.say(std::to_string(i));
    watched.sink->on_done({});
  });
  int next = 0;
  bool is_done = false;
  while (!is_done) {
    const int seen = watched.num_ready;
    while (const auto event = watched.channel->next()) {
      if (const auto* delta = std::get_if<engine::TextDelta>(&*event)) {
        ASSERT_EQ(delta->text, std::to_string(next++));
      } else {
        is_done = true;
      }
    }
    // A wake-up must follow the empty look above: without one this waits for ever.
    while (!is_done && watched.num_ready == seen) std::this_thread::yield();
  }
  producer.join();
  EXPECT_EQ(next, kCount);
}

TEST(CompletionError, SaysWhatTheClientMustKnow) {
  engine::Completion done;
  EXPECT_TRUE(completion_error(done).ok());
  done.status = absl::CancelledError("x");
  EXPECT_EQ(completion_error(done).code(), absl::StatusCode::kUnavailable);
  done.status = absl::DeadlineExceededError("x");
  EXPECT_EQ(completion_error(done).code(), absl::StatusCode::kDeadlineExceeded);
  done.status = absl::OkStatus();
  done.reason = engine::FinishReason::kError;
  EXPECT_EQ(completion_error(done).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace pbserve::server
