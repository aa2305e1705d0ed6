// The three bounds of the queue, what they say of the time until there is room, and that no two
// requests take one place.
#include "engine/queue_bounds.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace pbserve::engine {
namespace {

SchedulerOptions options(int64_t max_reqs, int64_t max_tokens, double max_s) {
  SchedulerOptions options;
  options.max_num_queued_reqs = max_reqs;
  options.max_num_queued_tokens = max_tokens;
  options.max_queued_s = max_s;
  return options;
}

QueueState waiting(int64_t num_requests, int64_t long_tokens, int64_t short_tokens = 0) {
  return {.num_requests = num_requests, .num_tokens = {long_tokens, short_tokens}};
}

// Tokens of a prompt whose lane is not known.
QueueBounds::Arrival known(int64_t num_tokens) { return {.num_tokens = num_tokens, .lane = {}}; }

int64_t retry_after_s(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryAfterPayload);
  return payload ? std::stoll(std::string(*payload)) : -1;
}

TEST(QueueBounds, EachIsRefusedByName) {
  QueueBounds bounds(options(2, 1000, 10));
  EXPECT_TRUE(bounds.take(known(5000)).ok()) << "a prompt of any length may wait alone";
  const absl::Status tokens = bounds.check(known(1));
  EXPECT_EQ(tokens.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(tokens.message().find("--max-num-queued-tokens"), std::string::npos) << tokens;
  bounds.publish(waiting(2, 10), known(5000));
  const absl::Status requests = bounds.check({});
  EXPECT_NE(requests.message().find("2 requests are waiting, the limit is 2"), std::string::npos);
  bounds.publish(waiting(1, 500));
  EXPECT_TRUE(bounds.check({}).ok()) << "no rate is known: no wait is estimated";
  bounds.observe_prefill(Lane::kLong, 40, 1000);
  EXPECT_TRUE(bounds.check({}).ok()) << "it might be short";
  const absl::Status late = bounds.check({.num_tokens = 1, .lane = Lane::kLong});
  EXPECT_NE(late.message().find("about 12.5 s before it starts, the limit is 10 s"),
            std::string::npos)
      << late;
  EXPECT_EQ(retry_after_s(late), 3);
  bounds.publish(waiting(1, 500, 450));
  EXPECT_FALSE(bounds.check({}).ok()) << "both lanes are late";
  bounds.observe_prefill(Lane::kShort, 1000, 1000);
  EXPECT_TRUE(bounds.check({}).ok()) << "each lane has a rate of its own";
}

TEST(QueueBounds, RetryAfterGrowsWithWhatIsTooMuch) {
  QueueBounds bounds(options(4, 1000, 0));
  bounds.publish(waiting(4, 800));
  EXPECT_EQ(retry_after_s(bounds.check({})), 1) << "nothing is measured yet";
  bounds.observe_prefill(Lane::kLong, 10, 1000);
  EXPECT_EQ(retry_after_s(bounds.check({})), 20) << "a quarter of 80 s";
  bounds.publish(waiting(8, 800));
  EXPECT_EQ(retry_after_s(bounds.check({})), 50) << "five of eight must start first";
  bounds.publish(waiting(1, 800));
  EXPECT_EQ(retry_after_s(bounds.check(known(300))), 10);
  EXPECT_EQ(retry_after_s(bounds.check(known(600))), 40);
  EXPECT_EQ(retry_after_s(bounds.check(known(5000))), 80) << "when it is empty";
}

TEST(QueueBounds, FillIsThatOfTheFullest) {
  QueueBounds bounds(options(10, 1000, 100));
  EXPECT_EQ(bounds.fill(), 0);
  bounds.publish(waiting(0, 900));
  EXPECT_EQ(bounds.fill(), 0) << "what runs is not in the way of the next one";
  bounds.publish(waiting(2, 500));
  EXPECT_DOUBLE_EQ(bounds.fill(), 0.5);
  bounds.publish(waiting(7, 500));
  EXPECT_DOUBLE_EQ(bounds.fill(), 0.7);
  bounds.observe_prefill(Lane::kLong, 1, 1000);
  EXPECT_DOUBLE_EQ(bounds.fill(), 0.7) << "the short lane is free";
  bounds.publish(waiting(7, 500, 300));
  EXPECT_DOUBLE_EQ(bounds.fill(), 3);
}

TEST(QueueBounds, NoTwoTakeTheLastPlace) {
  constexpr int kPlaces = 100;
  QueueBounds bounds(options(kPlaces, 1 << 20, 0));
  std::atomic<int> num_taken = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      for (int j = 0; j < kPlaces; ++j) num_taken += bounds.take({}).ok() ? 1 : 0;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(num_taken, kPlaces);
  EXPECT_EQ(bounds.num_requests(), kPlaces);
}

}  // namespace
}  // namespace pbserve::engine
