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

// A device on which a token takes `ms`, whatever stands before it; 0 = nothing was measured.
PrefillCost cost_of(double ms) {
  PrefillCost cost;
  if (ms > 0) cost.observe({.begin = 0, .end = 1000}, 1000 * ms);
  return cost;
}

// Prompts of equal length that arrived long ago, and are due in time.
QueueState waiting(int64_t num_requests, int64_t num_tokens, double ms_per_token = 0,
                   int64_t num_claims = 1) {
  QueueState state{.num_requests = num_requests,
                   .num_tokens = num_tokens,
                   .cost = cost_of(ms_per_token),
                   .time = Clock::now(),
                   .claims = {}};
  for (int64_t i = 0; i < num_claims; ++i) {
    state.claims.push_back(
        {.remaining_ms = state.cost.ms(0, num_tokens / num_claims, false), .due_ms = 1e9});
  }
  return state;
}

QueueBounds::Arrival known(int64_t num_tokens) { return {.num_tokens = num_tokens}; }

int64_t retry_after_s(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryAfterPayload);
  return payload ? std::stoll(std::string(*payload)) : -1;
}

TEST(QueueBounds, EachIsRefusedByName) {
  QueueBounds bounds(options(2, 2000, 10));
  EXPECT_TRUE(bounds.take(known(5000)).ok()) << "a prompt of any length may wait alone";
  const absl::Status tokens = bounds.check(known(1));
  EXPECT_EQ(tokens.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(tokens.message().find("--max-num-queued-tokens"), std::string::npos) << tokens;
  bounds.publish(waiting(2, 10), known(5000));
  const absl::Status requests = bounds.check({});
  EXPECT_NE(requests.message().find("2 requests are waiting, the limit is 2"), std::string::npos);
  bounds.publish(waiting(1, 500));
  EXPECT_TRUE(bounds.check({}).ok()) << "no rate is known: no wait is estimated";
  bounds.publish(waiting(1, 500, 25));
  EXPECT_TRUE(bounds.check(known(400)).ok()) << "it goes before the longer one";
  const absl::Status late = bounds.check(known(501));
  EXPECT_NE(late.message().find("about 12.5 s before it starts, the limit is 10 s"),
            std::string::npos)
      << late;
  EXPECT_EQ(retry_after_s(late), 3);
  QueueState nearly_due = waiting(1, 500, 25);
  nearly_due.claims[0].due_ms = 12550;
  bounds.publish(nearly_due);
  EXPECT_FALSE(bounds.check(known(400)).ok()) << "nothing overtakes what would be late";
  EXPECT_FALSE(bounds.check({.num_tokens = 501, .priority = -1}).ok());
  bounds.publish(waiting(1, 500, 25));
  EXPECT_TRUE(bounds.check({.num_tokens = 501, .priority = -1}).ok());
}

TEST(QueueBounds, RetryAfterGrowsWithWhatIsTooMuch) {
  QueueBounds bounds(options(4, 1000, 0));
  bounds.publish(waiting(4, 800));
  EXPECT_EQ(retry_after_s(bounds.check({})), 1) << "nothing is measured yet";
  bounds.publish(waiting(4, 800, 100));
  EXPECT_EQ(retry_after_s(bounds.check({})), 20) << "a quarter of 80 s";
  bounds.publish(waiting(8, 800, 100));
  EXPECT_EQ(retry_after_s(bounds.check({})), 50) << "five of eight must start first";
  bounds.publish(waiting(1, 800, 100));
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
  bounds.publish(waiting(7, 500, 1000));
  EXPECT_DOUBLE_EQ(bounds.fill(), 0.7) << "a short one would go first";
  QueueState due = waiting(7, 500, 1000);
  due.claims[0].due_ms = 0;
  bounds.publish(due);
  EXPECT_NEAR(bounds.fill(), 5, 1e-9);
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
