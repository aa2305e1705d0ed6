// The door that a drain closes: nobody slips past it.
#include "engine/live_requests.h"

#include <gtest/gtest.h>

#include <thread>

namespace pbserve::engine {
namespace {

using std::chrono::milliseconds;

TEST(LiveRequests, CountsThoseThatAreTaken) {
  LiveRequests live;
  EXPECT_TRUE(live.wait_until_none(milliseconds(0)));
  EXPECT_TRUE(live.enter([] { return true; }));
  EXPECT_FALSE(live.enter([] { return false; }));
  EXPECT_FALSE(live.wait_until_none(milliseconds(0)));
  live.leave();
  EXPECT_TRUE(live.wait_until_none(milliseconds(0)));
}

TEST(LiveRequests, NobodyEntersOnceClosed) {
  LiveRequests live;
  EXPECT_FALSE(live.is_closed());
  live.close();
  EXPECT_TRUE(live.is_closed());
  bool is_called = false;
  EXPECT_FALSE(live.enter([&] { return is_called = true; }));
  EXPECT_FALSE(is_called);
}

// A drain cancels what it finds in the queue: a request on its way in must have arrived by then.
TEST(LiveRequests, ClosingWaitsForWhoIsOnTheWayIn) {
  LiveRequests live;
  std::atomic<bool> is_entering = false;
  std::atomic<bool> is_queued = false;
  std::thread client([&] {
    live.enter([&] {
      is_entering = true;
      std::this_thread::sleep_for(milliseconds(30));
      return is_queued = true;
    });
  });
  while (!is_entering) std::this_thread::yield();
  live.close();
  EXPECT_TRUE(is_queued);
  EXPECT_FALSE(live.wait_until_none(milliseconds(0)));
  client.join();
}

TEST(LiveRequests, TheLastOneWakesTheDrain) {
  LiveRequests live;
  EXPECT_TRUE(live.enter([] { return true; }));
  live.close();
  std::thread engine([&] {
    std::this_thread::sleep_for(milliseconds(10));
    live.leave();
  });
  EXPECT_TRUE(live.wait_until_none(std::chrono::minutes(1)));
  engine.join();
}

}  // namespace
}  // namespace pbserve::engine
